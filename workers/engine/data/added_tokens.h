#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <absl/container/flat_hash_map.h>
#include <absl/status/statusor.h>
#include <nlohmann/json.hpp>

namespace qaas {

/// A token with a text of its own outside the model's merges, such as "<|begin_of_text|>".
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  ///< only where no word character stands on either side
  bool lstrip = false;       ///< swallows the white space before it
  bool rstrip = false;       ///< swallows the white space after it
  bool normalized = false;   ///< looked for in the normalized text, in normalized form
  bool special = false;
};

/// The "added_tokens" of a tokenizer.json in the file's order. kInvalidArgument names what is
/// wrong.
absl::StatusOr<std::vector<AddedToken>> parse_added_tokens(const nlohmann::json& added_tokens);

/// A stretch of a text: an added token, or text between such.
struct TextSegment {
  int32_t token_id = -1;  ///< -1: `text` is to be encoded
  std::string_view text;  ///< what was matched, stripped white space included, or what lies between
};

/// Finds added tokens in a text, leftmost first and of those the longest. Thread-safe once made.
class AddedTokenMatcher {
 public:
  /// Looks for `text` (not empty) and reports `token`. A text given before stays with its token.
  void add(std::string_view text, const AddedToken& token);

  /// Cuts valid UTF-8 `text`; no segment is empty.
  std::vector<TextSegment> cut(std::string_view text) const;

 private:
  struct Match {
    const AddedToken* token = nullptr;
    size_t end = 0;
  };
  Match longest_at(std::string_view text, size_t position) const;

  std::vector<AddedToken> tokens_;
  // A trie over bytes: (node << 8 | byte) to the next node; node 0 is the root.
  absl::flat_hash_map<uint64_t, uint32_t> edges_;
  std::vector<int32_t> token_of_node_ = {-1};
  bool first_byte_[256] = {};
};

}  // namespace qaas
