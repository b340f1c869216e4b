#include "workers/engine/data/sentencepiece_tokenizer.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>

#include "storage/checkpoint/config_fields.h"
#include "storage/checkpoint/strict_json.h"
#include "workers/engine/data/sentencepiece_file.h"

namespace qaas {
namespace {

constexpr char kSpaceMark[] = "\u2581";

absl::Status check_supported(const SentencePieceFile& file) {
  const auto refuse = [](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat(what,
                                                   " is not supported; a BPE model with the "
                                                   "identity normalizer is"));
  };
  if (file.model_type != SentencePieceFile::ModelType::kBpe) {
    return refuse(absl::StrCat("model_type ", static_cast<int>(file.model_type)));
  }
  if (file.has_character_map) return refuse(absl::StrCat("normalizer '", file.normalizer, "'"));
  if (file.remove_extra_whitespaces) return refuse("remove_extra_whitespaces");
  if (!file.escape_whitespaces) return refuse("escape_whitespaces false");
  if (file.treat_whitespace_as_suffix) return refuse("treat_whitespace_as_suffix");
  for (const SentencePieceFile::Piece& piece : file.pieces) {
    if (piece.type < SentencePieceFile::PieceType::kNormal ||
        piece.type > SentencePieceFile::PieceType::kByte ||
        piece.type == SentencePieceFile::PieceType::kUnused) {
      return refuse(
          absl::StrCat("piece '", piece.text, "' of type ", static_cast<int>(piece.type)));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> SentencePieceTokenizer::parse(
    std::string_view bytes, const nlohmann::json& config) {
  const auto file = parse_sentencepiece_file(bytes);
  if (!file.ok()) return file.status();
  if (auto status = check_supported(*file); !status.ok()) return status;
  auto model = BpeModel::from_pieces(*file);
  if (!model.ok()) return model.status();

  std::unique_ptr<SentencePieceTokenizer> tokenizer(new SentencePieceTokenizer(*std::move(model)));
  tokenizer->size_ = static_cast<int32_t>(file->pieces.size());
  tokenizer->add_dummy_prefix_ = file->add_dummy_prefix;
  for (size_t id = 0; id < file->pieces.size(); ++id) {
    const SentencePieceFile::Piece& piece = file->pieces[id];
    const AddedToken token{.id = static_cast<int32_t>(id), .content = piece.text};
    if (piece.type == SentencePieceFile::PieceType::kUserDefined) {
      tokenizer->user_defined_.add(piece.text, token);
    } else if (piece.type == SentencePieceFile::PieceType::kControl && !piece.text.empty()) {
      tokenizer->control_.add(piece.text, token);
    }
  }
  ConfigFields fields(config, "");
  if (fields.boolean("add_bos_token", true) && file->bos_id >= 0) {
    tokenizer->around_.prefix.push_back(file->bos_id);
  }
  if (fields.boolean("add_eos_token", false) && file->eos_id >= 0) {
    tokenizer->around_.suffix.push_back(file->eos_id);
  }
  if (!fields.status().ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer_config.json: ", fields.status().message()));
  }
  return tokenizer;
}

absl::StatusOr<std::vector<int32_t>> SentencePieceTokenizer::encode(std::string_view text,
                                                                    SpecialTokens special,
                                                                    SpecialText inside) const {
  if (!is_valid_utf8(text) || text.size() > INT32_MAX / 4) {
    return absl::InvalidArgumentError("the text is not valid UTF-8, or longer than 512 MiB");
  }
  std::vector<int32_t> ids;
  if (special == SpecialTokens::kAdd) ids = around_.prefix;
  const std::vector<TextSegment> stretches =
      inside == SpecialText::kParse ? control_.cut(text) : std::vector<TextSegment>{{.text = text}};
  for (const TextSegment& stretch : stretches) {
    if (stretch.token_id >= 0) {
      ids.push_back(stretch.token_id);
    } else if (auto status = encode_stretch(stretch.text, ids); !status.ok()) {
      return status;
    }
  }
  if (special == SpecialTokens::kAdd) {
    ids.insert(ids.end(), around_.suffix.begin(), around_.suffix.end());
  }
  return ids;
}

absl::Status SentencePieceTokenizer::encode_stretch(std::string_view text,
                                                    std::vector<int32_t>& ids) const {
  std::string normalized(text);
  if (add_dummy_prefix_ && !normalized.empty()) normalized.insert(normalized.begin(), ' ');
  normalized = absl::StrReplaceAll(normalized, {{" ", kSpaceMark}});
  for (const TextSegment& segment : user_defined_.cut(normalized)) {
    if (segment.token_id >= 0) {
      ids.push_back(segment.token_id);
    } else if (auto status = model_.encode(segment.text, ids); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace qaas
