#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

namespace qaas {

/// What a tokenizer.model of sentencepiece holds, as far as encoding needs it.
///
/// Read without libsentencepiece: Debian's exports a protobuf 3.14 of its own, and in one process
/// with the system's protobuf each calls into the other's functions and aborts.
struct SentencePieceFile {
  enum class PieceType { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
  enum class ModelType { kUnigram = 1, kBpe, kWord, kChar };
  struct Piece {
    std::string text;
    float score = 0;
    PieceType type = PieceType::kNormal;
  };

  std::vector<Piece> pieces;  ///< the index is the id
  ModelType model_type = ModelType::kUnigram;
  bool byte_fallback = false;
  bool treat_whitespace_as_suffix = false;
  int32_t bos_id = 1;              ///< -1: none
  int32_t eos_id = 2;              ///< -1: none
  std::string normalizer;          ///< its name, such as "identity" or "nmt_nfkc"
  bool has_character_map = false;  ///< the normalizer changes characters
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

/// Parses the protobuf of a tokenizer.model; fields it does not know are passed over, as protobuf
/// does. kInvalidArgument if the bytes are not such a message.
absl::StatusOr<SentencePieceFile> parse_sentencepiece_file(std::string_view bytes);

}  // namespace qaas
