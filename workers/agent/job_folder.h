#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "storage/artifacts/artifact_store.h"
#include "storage/database/job_store.h"

namespace qaas {

/// Where a worker finds what jobs name, and the engine.
struct JobRoots {
  std::filesystem::path models;    ///< "models/NAME" is folder NAME below it
  std::filesystem::path datasets;  ///< "datasets/NAME" likewise
  std::filesystem::path engine;    ///< the qaas-engine program
  int threads = 1;                 ///< compute threads of the engine
};

/// The folder of one attempt: `job.json`, `checkpoints/` and `artifact/`.
class JobFolder {
 public:
  explicit JobFolder(std::filesystem::path path) : path_(std::move(path)) {}

  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path artifact() const { return path_ / "artifact"; }
  const std::filesystem::path& path() const { return path_; }

  /// Writes job.json and makes the subfolders.
  absl::Status write(const v1::Job& job) const;

  /// Places the checkpoints an attempt starts from, each checked against its row. One that is
  /// missing or differs is left out and described in `warnings`; any other trouble is an error.
  absl::Status place_checkpoints(ArtifactStore& artifacts, const std::vector<StoredFile>& files,
                                 std::vector<std::string>& warnings) const;

  /// The engine's command line. Errors as resolve_resource.
  absl::StatusOr<std::vector<std::string>> engine_arguments(const v1::JobSpec& spec,
                                                            const JobRoots& roots) const;

 private:
  std::filesystem::path path_;
};

}  // namespace qaas
