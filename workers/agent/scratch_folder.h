#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include <absl/status/statusor.h>

#include "storage/artifacts/file_descriptor.h"

namespace qaas {

/// A folder of this worker's own below the scratch root, locked while it lives and removed at its
/// end. Several workers may share one root.
class ScratchFolder {
 public:
  /// Makes the folder (and the root), after removing the folders of workers that are gone: those
  /// nobody holds a lock on. kResourceExhausted, kPermissionDenied or kUnavailable on failure.
  static absl::StatusOr<std::unique_ptr<ScratchFolder>> open(const std::filesystem::path& root);
  ~ScratchFolder();

  const std::filesystem::path& path() const { return path_; }

  /// Makes an empty folder `name` in it, removing what is there.
  absl::StatusOr<std::filesystem::path> make(const std::string& name);
  /// Removes folder `name`, as far as possible.
  void remove(const std::string& name);

 private:
  ScratchFolder(std::filesystem::path path, FileDescriptor lock);

  std::filesystem::path path_;
  FileDescriptor lock_;
};

}  // namespace qaas
