#include <algorithm>
#include <map>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <unicode/utf8.h>

#include "workers/engine/data/bpe_model.h"
#include "workers/engine/data/sentencepiece_file.h"

// sentencepiece merges two neighbours whenever together they are a piece, best score first and
// leftmost among equals. That is the same as merging by rank, with a merge for every way to cut a
// piece into two pieces, ranked by the score of what it makes, as long as no character that is not
// a piece itself can take part: hence the check below.

namespace qaas {

absl::StatusOr<BpeModel> BpeModel::from_pieces(const SentencePieceFile& file) {
  using Type = SentencePieceFile::PieceType;
  BpeModel model;
  model.fuse_unknown_ = true;
  model.highest_id_ = static_cast<int32_t>(file.pieces.size()) - 1;
  model.id_of_byte_.assign(file.byte_fallback ? 256 : 0, -1);
  std::map<float, uint32_t, std::greater<>> rank_of_score;
  for (size_t index = 0; index < file.pieces.size(); ++index) {
    const SentencePieceFile::Piece& piece = file.pieces[index];
    const auto id = static_cast<int32_t>(index);
    if (piece.type == Type::kUnknown) model.unknown_id_ = id;
    for (size_t byte = 0; piece.type == Type::kByte && byte < model.id_of_byte_.size(); ++byte) {
      if (piece.text == absl::StrFormat("<0x%02X>", byte)) model.id_of_byte_[byte] = id;
    }
    if (piece.type != Type::kNormal) continue;
    if (!model.insert(piece.text, id)) {
      return absl::InvalidArgumentError(absl::StrCat("piece '", piece.text, "' occurs twice"));
    }
    rank_of_score[piece.score] = 0;
  }
  if (std::count(model.id_of_byte_.begin(), model.id_of_byte_.end(), -1) > 0) {
    return absl::InvalidArgumentError("byte_fallback is on, but not all 256 byte pieces are there");
  }
  uint32_t next_rank = 0;
  for (auto& [score, rank] : rank_of_score) rank = next_rank++;

  for (size_t index = 0; index < file.pieces.size(); ++index) {
    const SentencePieceFile::Piece& piece = file.pieces[index];
    if (piece.type != Type::kNormal) continue;
    const std::string_view text = piece.text;
    const auto size = static_cast<int32_t>(text.size());
    for (int32_t cut = 0; cut < size;) {
      const int32_t begin = cut;
      UChar32 character = 0;
      U8_NEXT(text.data(), cut, size, character);
      if (!model.id_of_character_.contains(character)) {
        return absl::InvalidArgumentError(absl::StrCat(
            "piece '", piece.text, "' holds the character '",
            std::string(text.substr(static_cast<size_t>(begin), static_cast<size_t>(cut - begin))),
            "', which is not a piece itself; such models are not supported"));
      }
      const int32_t left = model.id_of(text.substr(0, static_cast<size_t>(cut)));
      const int32_t right = model.id_of(text.substr(static_cast<size_t>(cut)));
      if (left >= 0 && right >= 0) {
        model.add_merge(left, right, {rank_of_score[piece.score], static_cast<int32_t>(index)});
      }
    }
  }
  return model;
}

}  // namespace qaas
