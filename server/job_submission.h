#pragma once

#include <string>

#include <absl/status/statusor.h>

#include "qaas/v1/job.pb.h"
#include "qaas/v1/quantization_service.pb.h"
#include "server/folder_registry.h"

/// From what a caller asks for to a job that can be queued: everything SubmitJob and Forecast
/// check.
namespace qaas {

/// The job that `spec` would become: defaults filled in, forecast made, model pinned to its digest;
/// without name and request id. Violations name fields below "spec.".
/// kInvalidArgument: the spec, or a model or dataset it names, cannot be used.
/// kFailedPrecondition with RetryInfo: the model's digest is still being computed.
absl::StatusOr<v1::Job> prepare_job(const v1::JobSpec& spec, const FolderRegistry& folders);

/// OK if `request_id` is empty or a UUID, of either case.
absl::Status check_request_id(const std::string& request_id);

/// Identifies the body of a request as sent: SHA-256 of its deterministic serialization, hex.
absl::StatusOr<std::string> request_fingerprint(const v1::SubmitJobRequest& request);

}  // namespace qaas
