#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

/// Files of a user's model or dataset folder. Names that come out of a file (a sharded index) or
/// out of a listing are treated as hostile.
namespace qaas {

/// Names of the regular files directly in `folder`, hidden ones left out, sorted by their bytes. A
/// symlink counts as what it points to. kNotFound if it is no folder, kInvalidArgument for a name
/// with control characters, kUnavailable if it cannot be listed.
absl::StatusOr<std::vector<std::string>> folder_files(const std::filesystem::path& folder);

/// The resolved path of regular file `name` in `folder`. kNotFound if there is none;
/// kInvalidArgument if `name` is not a plain visible file name, or is a symlink that leaves the
/// folder.
absl::StatusOr<std::filesystem::path> resolve_inside(const std::filesystem::path& folder,
                                                     std::string_view name);

/// The whole of regular file `name` in `folder`, found as resolve_inside does. kInvalidArgument if
/// it has more than `max_bytes`.
absl::StatusOr<std::string> read_inside(const std::filesystem::path& folder, std::string_view name,
                                        int64_t max_bytes);

}  // namespace qaas
