#include "workers/engine/data/tokenizer.h"

#include <algorithm>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/config_fields.h"
#include "storage/checkpoint/folder_entry.h"
#include "storage/checkpoint/strict_json.h"
#include "workers/engine/data/json_tokenizer.h"
#include "workers/engine/data/sentencepiece_model.h"
#include "workers/engine/data/special_ids.h"

namespace qaas {
namespace {

using nlohmann::json;

constexpr char kJsonFile[] = "tokenizer.json";
constexpr char kSentencePieceFile[] = "tokenizer.model";
constexpr char kConfigFile[] = "tokenizer_config.json";
constexpr int64_t kMaxTokenizerBytes = 256 << 20;

absl::Status in_file(const std::filesystem::path& folder, const char* file,
                     const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat((folder / file).string(), ": ", status.message()));
}

/// A tokenizer.model, with begin- and end-of-sequence as tokenizer_config.json says.
class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(SentencePieceModel model, SpecialIds around)
      : model_(std::move(model)), around_(std::move(around)) {}

  absl::StatusOr<std::vector<int32_t>> encode(std::string_view text,
                                              SpecialTokens special) const override {
    if (!is_valid_utf8(text)) return absl::InvalidArgumentError("the text is not valid UTF-8");
    std::vector<int32_t> ids;
    if (special == SpecialTokens::kAdd) ids = around_.prefix;
    if (const auto error = model_.encode(std::string(text), ids)) {
      return absl::InvalidArgumentError(*error);
    }
    if (special == SpecialTokens::kAdd) {
      ids.insert(ids.end(), around_.suffix.begin(), around_.suffix.end());
    }
    return ids;
  }

  int32_t size() const override { return model_.size(); }

 private:
  SentencePieceModel model_;
  SpecialIds around_;
};

/// Llama's tokenizer class adds begin-of-sequence unless told otherwise, and no end-of-sequence.
absl::StatusOr<SpecialIds> sentencepiece_special_ids(const json& config,
                                                     const SentencePieceModel& model) {
  ConfigFields fields(config, "");
  SpecialIds ids;
  if (fields.boolean("add_bos_token", true) && model.bos_id() >= 0) {
    ids.prefix.push_back(model.bos_id());
  }
  if (fields.boolean("add_eos_token", false) && model.eos_id() >= 0) {
    ids.suffix.push_back(model.eos_id());
  }
  if (!fields.status().ok()) return fields.status();
  return ids;
}

/// The folder's tokenizer_config.json; an empty object where there is none.
absl::StatusOr<json> read_config(const std::filesystem::path& folder,
                                 const std::vector<std::string>& names) {
  if (!std::binary_search(names.begin(), names.end(), kConfigFile)) return json::object();
  const auto text = read_inside(folder, kConfigFile, kMaxTokenizerBytes);
  if (!text.ok()) return text.status();
  auto config = parse_strict_json(*text, {});
  if (!config.ok()) return in_file(folder, kConfigFile, config.status());
  if (!config->is_object()) {
    return in_file(folder, kConfigFile, absl::InvalidArgumentError("expected a JSON object"));
  }
  return config;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> load_tokenizer(const std::filesystem::path& folder) {
  const auto names = folder_files(folder);
  if (!names.ok()) return names.status();
  const auto config = read_config(folder, *names);
  if (!config.ok()) return config.status();

  if (std::binary_search(names->begin(), names->end(), kJsonFile)) {
    const auto text = read_inside(folder, kJsonFile, kMaxTokenizerBytes);
    if (!text.ok()) return text.status();
    auto tokenizer = JsonTokenizer::parse(*text, *config);
    if (!tokenizer.ok()) return in_file(folder, kJsonFile, tokenizer.status());
    return tokenizer;
  }
  if (!std::binary_search(names->begin(), names->end(), kSentencePieceFile)) {
    return absl::NotFoundError(
        absl::StrCat(folder.string(), ": holds neither ", kJsonFile, " nor ", kSentencePieceFile));
  }
  const auto bytes = read_inside(folder, kSentencePieceFile, kMaxTokenizerBytes);
  if (!bytes.ok()) return bytes.status();
  SentencePieceModel model;
  if (const auto error = model.load(*bytes)) {
    return in_file(folder, kSentencePieceFile, absl::InvalidArgumentError(*error));
  }
  auto around = sentencepiece_special_ids(*config, model);
  if (!around.ok()) return in_file(folder, kConfigFile, around.status());
  return std::make_unique<SentencePieceTokenizer>(std::move(model), *std::move(around));
}

}  // namespace qaas
