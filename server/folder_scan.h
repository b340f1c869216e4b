#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

/// Looks at folders without opening their files.
namespace qaas {

/// A folder directly under a root that can be named by a resource.
struct ScannedFolder {
  std::string name;
  /// Digest of names, sizes and modification times of its regular files, hidden ones left out:
  /// equal while nothing was touched.
  std::string fingerprint;
  /// Newest modification time, seconds since 1970.
  int64_t modified_seconds = 0;
};

/// The folders under `root` in name order. Left out: hidden ones, names that cannot be resource
/// ids, and symlinks that leave the root. kUnavailable if the root cannot be listed.
absl::StatusOr<std::vector<ScannedFolder>> scan_root(const std::filesystem::path& root);

/// A dataset folder as jobs see it.
struct DatasetFolder {
  std::string name;
  /// Why it cannot be used; empty if it can.
  std::string problem;
};

/// Whether `folder` holds text: at least one non-empty .txt, .jsonl or .ids file.
DatasetFolder inspect_dataset(const std::filesystem::path& folder);

}  // namespace qaas
