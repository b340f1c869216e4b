#include "workers/engine/data/json_tokenizer.h"

#include <algorithm>
#include <map>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include "storage/checkpoint/config_fields.h"
#include "storage/checkpoint/strict_json.h"

namespace qaas {

using nlohmann::json;

absl::StatusOr<std::unique_ptr<Tokenizer>> JsonTokenizer::parse(std::string_view text,
                                                                const json& config) {
  const auto document = parse_strict_json(text, {.max_depth = 32, .max_values = 20'000'000});
  if (!document.ok()) return document.status();
  if (!document->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a JSON object, got ", describe_json(*document)));
  }
  ConfigFields fields(*document, "");
  fields.accept_only({"version", "truncation", "padding", "added_tokens", "normalizer",
                      "pre_tokenizer", "post_processor", "decoder", "model"});
  if (const std::string version = fields.string("version", "1.0"); version != "1.0") {
    fields.fail("version", absl::StrCat("is '", version, "', accepted: 1.0"));
  }
  if (!fields.status().ok()) return fields.status();

  auto normalizer = TextNormalizer::parse(document->value("normalizer", json()));
  if (!normalizer.ok()) return normalizer.status();
  auto pre_tokenizer = PreTokenizer::parse(document->value("pre_tokenizer", json()));
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  auto model = BpeModel::parse(document->value("model", json()));
  if (!model.ok()) return model.status();
  auto added = parse_added_tokens(document->value("added_tokens", json()));
  if (!added.ok()) return added.status();

  std::unique_ptr<JsonTokenizer> tokenizer(
      new JsonTokenizer(*std::move(normalizer), *std::move(pre_tokenizer), *std::move(model)));
  if (auto status = tokenizer->add_tokens(*added); !status.ok()) return status;
  const auto lookup = [&](const std::string& content) {
    for (const AddedToken& token : *added) {
      if (token.content == content) return token.id;
    }
    return tokenizer->model_.id_of(content);
  };
  auto around =
      special_ids_from_post_processor(document->value("post_processor", json()), config, lookup);
  if (!around.ok()) return around.status();
  tokenizer->around_ = *std::move(around);
  for (const auto* side : {&tokenizer->around_.prefix, &tokenizer->around_.suffix}) {
    for (const int32_t id : *side) tokenizer->size_ = std::max(tokenizer->size_, id + 1);
  }
  return tokenizer;
}

absl::Status JsonTokenizer::add_tokens(const std::vector<AddedToken>& tokens) {
  size_ = model_.highest_id() + 1;
  // Other runtimes number tokens that the vocabulary lacks themselves, upward from its size; a file
  // that says otherwise would mean different ids to them.
  auto next_id = static_cast<int32_t>(model_.vocabulary_size());
  std::map<std::string, int32_t> seen;
  for (const AddedToken& token : tokens) {
    const int32_t in_vocabulary = model_.id_of(token.content);
    const int32_t expected = in_vocabulary >= 0 ? in_vocabulary : next_id;
    if (!seen.emplace(token.content, token.id).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("field 'added_tokens': '", token.content, "' is listed twice"));
    }
    if (token.id != expected) {
      return absl::InvalidArgumentError(absl::StrCat(
          "field 'added_tokens': '", token.content, "' has id ", token.id, ", ",
          in_vocabulary >= 0 ? "the vocabulary gives it " : "the ids after the vocabulary give it ",
          expected));
    }
    next_id = std::max(next_id, token.id + 1);
    size_ = std::max(size_, token.id + 1);
    if (!token.normalized) {
      all_tokens_.raw.add(token.content, token);
      if (!token.special) plain_tokens_.raw.add(token.content, token);
      continue;
    }
    const std::string content = normalizer_.normalize(token.content);
    if (content.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("field 'added_tokens': '", token.content,
                                                     "' is normalized to the empty text"));
    }
    all_tokens_.normalized.add(content, token);
    if (!token.special) plain_tokens_.normalized.add(content, token);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> JsonTokenizer::encode(std::string_view text,
                                                           SpecialTokens special,
                                                           SpecialText inside) const {
  if (!is_valid_utf8(text) || text.size() > INT32_MAX / 4) {
    return absl::InvalidArgumentError("the text is not valid UTF-8, or longer than 512 MiB");
  }
  const Matchers& tokens = inside == SpecialText::kParse ? all_tokens_ : plain_tokens_;
  std::vector<int32_t> ids;
  if (special == SpecialTokens::kAdd) ids = around_.prefix;
  for (const TextSegment& segment : tokens.raw.cut(text)) {
    if (segment.token_id >= 0) {
      ids.push_back(segment.token_id);
      continue;
    }
    const bool at_start = segment.text.data() == text.data();
    if (auto status = encode_raw(segment.text, at_start, tokens.normalized, ids); !status.ok()) {
      return status;
    }
  }
  if (special == SpecialTokens::kAdd) {
    ids.insert(ids.end(), around_.suffix.begin(), around_.suffix.end());
  }
  return ids;
}

absl::Status JsonTokenizer::encode_raw(std::string_view text, bool at_start,
                                       const AddedTokenMatcher& normalized_tokens,
                                       std::vector<int32_t>& ids) const {
  const std::string normalized = normalizer_.normalize(std::string(text));
  for (const TextSegment& segment : normalized_tokens.cut(normalized)) {
    if (segment.token_id >= 0) {
      ids.push_back(segment.token_id);
      continue;
    }
    const bool first = at_start && segment.text.data() == normalized.data();
    if (auto status = encode_normalized(segment.text, first, ids); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status JsonTokenizer::encode_normalized(std::string_view text, bool at_start,
                                              std::vector<int32_t>& ids) const {
  const auto pieces = pre_tokenizer_.cut({std::string(text), at_start});
  if (!pieces.ok()) return pieces.status();
  for (const TextPiece& piece : *pieces) {
    if (auto status = model_.encode(piece.text, ids); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace qaas
