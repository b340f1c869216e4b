#pragma once

#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "storage/artifacts/artifact_store.h"

namespace qaas {

/// The Status of a failed file operation, as ArtifactStore documents its codes: "<what>: <reason>".
absl::Status io_error(int error_number, const std::string& what);

/// Copies everything from descriptor `source` to `target` and returns size and SHA-256 of what was
/// copied. `what` names the target in errors.
absl::StatusOr<ArtifactStore::Stored> copy_and_digest(int source, int target,
                                                      const std::string& what);

/// Size and SHA-256 of what descriptor `source` still holds. `what` names it in errors.
absl::StatusOr<ArtifactStore::Stored> digest(int source, const std::string& what);

}  // namespace qaas
