#pragma once

#include <filesystem>
#include <stop_token>
#include <string>
#include <string_view>

#include <absl/status/statusor.h>

namespace qaas {

/// SHA-256 of a file's bytes, lower-case hex. Reads in chunks; kNotFound or kUnavailable on
/// failure, kUnavailable also when the file changes while it is read.
absl::StatusOr<std::string> sha256_file(const std::filesystem::path& path);

/// SHA-256 of `text`, lower-case hex.
absl::StatusOr<std::string> sha256_text(std::string_view text);

/// SHA-256 over the sorted list of "<relative name>\n<size>\n<file digest>\n" of every regular file
/// in a folder (no recursion, hidden files left out): identifies a model or dataset folder. A
/// symlink counts as the file it points to. kInvalidArgument for one that leaves the folder, or a
/// name with control characters; kCancelled within a chunk (1 MiB) of a stop request, so that a
/// service need not read terabytes to its end before it can exit; else fails as sha256_file.
absl::StatusOr<std::string> sha256_folder(const std::filesystem::path& folder,
                                          const std::stop_token& stop = {});

}  // namespace qaas
