#include "storage/checkpoint/folder_entry.h"

#include <algorithm>
#include <fstream>
#include <system_error>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include "storage/checkpoint/message_text.h"

namespace qaas {
namespace {

namespace fs = std::filesystem;

bool has_control_character(std::string_view name) {
  return std::any_of(name.begin(), name.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
}

}  // namespace

absl::StatusOr<std::vector<std::string>> folder_files(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    return absl::NotFoundError(absl::StrCat(folder.string(), ": no such folder"));
  }
  std::vector<std::string> names;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (name.front() == '.') continue;
    if (has_control_character(name)) {
      return absl::InvalidArgumentError(absl::StrCat(folder.string(), ": file name '",
                                                     printable(name), "' has control characters"));
    }
    std::error_code type_error;
    if (entry->is_regular_file(type_error)) names.push_back(std::move(name));
  }
  if (error) {
    return absl::UnavailableError(absl::StrCat(folder.string(), ": ", error.message()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<fs::path> resolve_inside(const fs::path& folder, std::string_view name) {
  if (name.empty() || name.front() == '.' || name.find('/') != std::string_view::npos ||
      has_control_character(name)) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder.string(), ": '", printable(name),
                     "' is not a plain file name (no '/', no leading '.', no control characters)"));
  }
  std::error_code error;
  const fs::path root = fs::canonical(folder, error);
  if (error) return absl::NotFoundError(absl::StrCat(folder.string(), ": no such folder"));
  const fs::path path = root / name;
  const fs::path resolved = fs::canonical(path, error);
  if (error || !fs::is_regular_file(resolved, error)) {
    return absl::NotFoundError(absl::StrCat(path.string(), ": no such file"));
  }
  const auto [unmatched, rest] =
      std::mismatch(root.begin(), root.end(), resolved.begin(), resolved.end());
  if (unmatched != root.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": a symlink that leaves the folder; copy the file instead"));
  }
  return resolved;
}

absl::StatusOr<std::string> read_inside(const fs::path& folder, std::string_view name,
                                        int64_t max_bytes) {
  const auto path = resolve_inside(folder, name);
  if (!path.ok()) return path.status();
  std::ifstream file(*path, std::ios::binary);
  std::error_code error;
  const auto size = fs::file_size(*path, error);
  if (!file || error) {
    return absl::UnavailableError(absl::StrCat(path->string(), ": cannot be read"));
  }
  if (size > static_cast<uintmax_t>(max_bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path->string(), ": ", size, " bytes, at most ", max_bytes, " are accepted"));
  }
  std::string text(size, '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(size))) {
    return absl::UnavailableError(absl::StrCat(path->string(), ": cannot be read to its end"));
  }
  return text;
}

}  // namespace qaas
