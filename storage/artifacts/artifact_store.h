#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

namespace qaas {

/// Where finished and checkpointed files live: immutable objects under slash-separated keys such as
/// "jobs/J/attempts/A/artifact/model.safetensors". Server and all workers see the same store.
/// Thread-safe. A key is written once; it becomes readable only when whole and synced.
///
/// Each part of a key is 1 to 255 letters, digits, '.', '_' or '-' and begins with none of '.' and
/// '-'; a key is at most 1024 bytes. Anything else is kInvalidArgument, in every method. Other
/// codes: kNotFound (no such key), kResourceExhausted (no space, quota or descriptors left),
/// kPermissionDenied, and kUnavailable for an input/output error.
class ArtifactStore {
 public:
  virtual ~ArtifactStore() = default;

  struct Stored {
    int64_t size_bytes = 0;
    std::string sha256;  ///< hex, computed while copying
  };
  /// Copies a file into the store. kResourceExhausted when the disk is full; kAlreadyExists when
  /// the key exists with other content; kInvalidArgument for a key that leaves the store.
  virtual absl::StatusOr<Stored> put(const std::string& key, const std::filesystem::path& file) = 0;

  /// Reads up to `size` bytes from `offset` into `out` (resized to what was read: fewer only at the
  /// end, empty behind it). Negative offset or size is kInvalidArgument.
  virtual absl::Status read(const std::string& key, int64_t offset, int64_t size,
                            std::string& out) = 0;

  /// Copies an object into a local file, replacing it, and says what was copied. The file appears
  /// under its name only when whole. kNotFound when the key does not exist.
  virtual absl::StatusOr<Stored> fetch(const std::string& key,
                                       const std::filesystem::path& file) = 0;

  /// Prefixes present that can be removed apart: each attempt's, "jobs/J/attempts/A/", and after it
  /// those of its folders, "jobs/J/attempts/A/checkpoints/".
  virtual absl::StatusOr<std::vector<std::string>> attempt_prefixes() = 0;

  /// Removes everything under a prefix that ends in '/'. Removing nothing is OK.
  virtual absl::Status remove_prefix(const std::string& prefix) = 0;
};

/// A store in a local or shared folder, which is created if missing. The folder's filesystem must
/// support hard links (they make "written once" atomic also between machines). Symbolic links below
/// the folder are never followed.
absl::StatusOr<std::unique_ptr<ArtifactStore>> open_local_artifact_store(
    const std::filesystem::path& root);

}  // namespace qaas
