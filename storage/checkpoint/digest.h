#pragma once

#include <filesystem>
#include <string>

#include <absl/status/statusor.h>

namespace qaas {

/// SHA-256 of a file's bytes, lower-case hex. Reads in chunks; kNotFound or kUnavailable on failure.
absl::StatusOr<std::string> sha256_file(const std::filesystem::path& path);

/// SHA-256 over the sorted list of "<relative name>\n<size>\n<file digest>\n" of every regular file
/// in a folder (no recursion, hidden files left out): identifies a model or dataset folder.
absl::StatusOr<std::string> sha256_folder(const std::filesystem::path& folder);

}  // namespace qaas
