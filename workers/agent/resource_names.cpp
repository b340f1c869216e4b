#include "workers/agent/resource_names.h"

#include <algorithm>
#include <system_error>

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>

namespace qaas {

bool is_plain_name(const std::string& name) {
  return !name.empty() && name.size() <= 255 && absl::ascii_isalnum(name[0]) &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

absl::StatusOr<std::filesystem::path> resolve_resource(const std::filesystem::path& root,
                                                       const std::string& collection,
                                                       const std::string& name) {
  absl::string_view rest = name;
  const bool in_collection = absl::ConsumePrefix(&rest, absl::StrCat(collection, "/"));
  const std::string folder(rest);
  if (!in_collection || !is_plain_name(folder)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", name, "': expected '", collection,
                     "/NAME' with a NAME of letters, digits, '.', '_' and '-'"));
  }
  std::error_code error;
  const std::filesystem::path real_root = std::filesystem::canonical(root, error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("the worker's ", collection, " folder: ", error.message()));
  }
  const std::filesystem::path path = std::filesystem::canonical(real_root / folder, error);
  if (error) {
    return absl::NotFoundError(absl::StrCat("'", name, "' on this worker: ", error.message()));
  }
  if (*path.lexically_relative(real_root).begin() == "..") {
    return absl::NotFoundError(
        absl::StrCat("'", name, "' on this worker is a link out of the ", collection, " folder"));
  }
  return path;
}

}  // namespace qaas
