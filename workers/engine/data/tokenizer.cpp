#include "workers/engine/data/tokenizer.h"

#include <algorithm>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/folder_entry.h"
#include "storage/checkpoint/strict_json.h"
#include "workers/engine/data/json_tokenizer.h"
#include "workers/engine/data/sentencepiece_tokenizer.h"

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
  auto tokenizer = SentencePieceTokenizer::parse(*bytes, *config);
  if (!tokenizer.ok()) return in_file(folder, kSentencePieceFile, tokenizer.status());
  return tokenizer;
}

}  // namespace qaas
