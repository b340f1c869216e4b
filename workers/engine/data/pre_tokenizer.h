#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <absl/status/statusor.h>
#include <nlohmann/json.hpp>

#include "workers/engine/data/split_regex.h"

namespace qaas {

/// A stretch of text that no merge crosses.
struct TextPiece {
  std::string text;
  bool at_start = false;  ///< begins where the text given to the tokenizer begins
};

/// The "pre_tokenizer" of a tokenizer.json: Split (isolated), ByteLevel, Metaspace, and sequences
/// of them. Thread-safe once made.
class PreTokenizer {
 public:
  /// null leaves a text whole. kInvalidArgument names the part that is not supported.
  static absl::StatusOr<PreTokenizer> parse(const nlohmann::json& pre_tokenizer);

  /// Cuts `piece` (valid UTF-8, not empty) into the pieces that the model encodes, none empty.
  absl::StatusOr<std::vector<TextPiece>> cut(TextPiece piece) const;

 private:
  struct Split {
    SplitRegex regex;
  };
  struct ByteLevel {
    bool add_prefix_space;
    std::optional<SplitRegex> regex;  // cuts before the bytes are spelled out
  };
  struct Metaspace {
    enum class Prepend { kAlways, kFirst, kNever };
    std::string replacement;
    Prepend prepend;
    bool split;
  };
  using Step = std::variant<Split, ByteLevel, Metaspace>;

  absl::Status append(const nlohmann::json& object, const std::string& path);
  absl::Status append_split(const nlohmann::json& object, const std::string& path);
  absl::Status append_byte_level(const nlohmann::json& object, const std::string& path);
  absl::Status append_metaspace(const nlohmann::json& object, const std::string& path);

  static absl::Status apply(const Split& step, TextPiece piece, std::vector<TextPiece>& pieces);
  static absl::Status apply(const ByteLevel& step, TextPiece piece, std::vector<TextPiece>& pieces);
  static absl::Status apply(const Metaspace& step, TextPiece piece, std::vector<TextPiece>& pieces);

  std::vector<Step> steps_;
};

}  // namespace qaas
