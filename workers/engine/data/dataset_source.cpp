#include "workers/engine/data/dataset_source.h"

#include <fstream>
#include <system_error>

#include <absl/strings/str_cat.h>
#include <nlohmann/json.hpp>

namespace qaas {
namespace {

constexpr uintmax_t kMostBytes = 1 << 20;

}  // namespace

absl::StatusOr<std::string> dataset_source(const std::filesystem::path& dataset) {
  const std::filesystem::path path = dataset / "dataset.json";
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return std::string();
  if (size > kMostBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": ", size, " bytes, expected at most ", kMostBytes));
  }
  std::ifstream file(path, std::ios::binary);
  const nlohmann::json json = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": expected a JSON object"));
  }
  const auto source = json.find("source");
  if (source == json.end()) return std::string();
  if (!source->is_string()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": field 'source' is not a string"));
  }
  return source->get<std::string>();
}

}  // namespace qaas
