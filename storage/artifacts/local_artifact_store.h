#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "storage/artifacts/artifact_store.h"
#include "storage/artifacts/file_descriptor.h"

namespace qaas {

/// ArtifactStore in a folder: the key is the path below it. A file is copied under a hidden
/// temporary name, synced, and hard-linked to its key, so a key appears whole or not at all and a
/// second writer cannot replace it. Use open_local_artifact_store to make one.
class LocalArtifactStore : public ArtifactStore {
 public:
  /// `root_folder`: the opened folder `root`.
  LocalArtifactStore(std::filesystem::path root, FileDescriptor root_folder);

  absl::StatusOr<Stored> put(const std::string& key, const std::filesystem::path& file) override;
  absl::Status read(const std::string& key, int64_t offset, int64_t size,
                    std::string& out) override;
  absl::StatusOr<Stored> fetch(const std::string& key, const std::filesystem::path& file) override;
  absl::StatusOr<std::vector<std::string>> attempt_prefixes() override;
  absl::Status remove_prefix(const std::string& prefix) override;

 private:
  enum class Missing { kFail, kCreate };

  /// Opens the folder `parts` name below the root, one part at a time, following no symbolic link.
  absl::StatusOr<FileDescriptor> open_folder(const std::vector<std::string>& parts,
                                             Missing missing) const;
  /// Opens the object `key` for reading. kNotFound unless it is a regular file.
  absl::StatusOr<FileDescriptor> open_object(const std::string& key) const;

  std::filesystem::path root_;
  FileDescriptor root_folder_;
};

}  // namespace qaas
