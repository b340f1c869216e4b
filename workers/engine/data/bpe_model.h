#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <absl/container/flat_hash_map.h>
#include <absl/status/statusor.h>
#include <nlohmann/json.hpp>

namespace qaas {

struct SentencePieceFile;

/// The "model" of a tokenizer.json, type BPE: byte-pair merges over the characters of a piece,
/// lowest rank first, leftmost on ties. Thread-safe once made.
class BpeModel {
 public:
  /// kInvalidArgument names the field that is missing, wrong or not supported (dropout, prefixes
  /// and suffixes), or the merge whose tokens the vocabulary lacks.
  static absl::StatusOr<BpeModel> parse(const nlohmann::json& model);

  /// The same for the pieces of a sentencepiece model of type BPE. kInvalidArgument names a piece
  /// that cannot be carried over.
  static absl::StatusOr<BpeModel> from_pieces(const SentencePieceFile& file);

  /// Appends the ids of `piece` (valid UTF-8). kInvalidArgument for a character that neither the
  /// vocabulary nor byte fallback nor an unknown token spells.
  absl::Status encode(std::string_view piece, std::vector<int32_t>& ids) const;

  /// The id of a vocabulary entry, or -1.
  int32_t id_of(std::string_view token) const;
  int32_t highest_id() const { return highest_id_; }
  size_t vocabulary_size() const { return vocabulary_.size(); }

 private:
  struct Merge {
    uint32_t rank;
    int32_t merged_id;
  };
  struct TransparentHash : std::hash<std::string_view> {
    using is_transparent = void;
  };

  /// False if `token` is there already.
  bool insert(const std::string& token, int32_t id);
  void add_merge(int32_t left, int32_t right, Merge merge);
  absl::Status read_vocabulary(const nlohmann::json& vocabulary);
  absl::Status read_merges(const nlohmann::json& merges);
  absl::Status first_ids(std::string_view piece, std::vector<int32_t>& ids) const;
  void merge(std::vector<int32_t>& ids) const;
  const Merge* find_merge(int32_t left, int32_t right) const;

  std::unordered_map<std::string, int32_t, TransparentHash, std::equal_to<>> vocabulary_;
  absl::flat_hash_map<int32_t, int32_t> id_of_character_;  // by code point
  absl::flat_hash_map<uint64_t, Merge> merges_;            // by left id << 32 | right id
  std::vector<int32_t> id_of_byte_;  // of "<0x00>".., -1 where absent; or empty
  int32_t unknown_id_ = -1;
  int32_t highest_id_ = -1;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
};

}  // namespace qaas
