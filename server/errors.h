#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <grpcpp/support/status.h>

#include "proto/spec/job_spec.h"

/// How the server words refusals: an absl::Status that carries google.rpc details, and the one
/// translation of it into what gRPC sends.
namespace qaas {

/// A Status with google.rpc.ErrorInfo: domain "qaas", `reason` in upper snake case (part of the
/// public contract: clients branch on it), and what the message says in machine-readable form.
absl::Status refusal(absl::StatusCode code, const std::string& reason, const std::string& message,
                     const std::map<std::string, std::string>& metadata = {});

/// The same Status with this reason, where storage gave none.
absl::Status with_reason(const absl::Status& status, const std::string& reason);

/// What the job store says of a job, with the API's reason where the code tells it: JOB_NOT_FOUND,
/// REQUEST_ID_REUSED, JOB_SETTLED. Other codes stay as they are.
absl::Status job_error(const absl::Status& status);

/// kInvalidArgument, reason FIELD_INVALID, with a google.rpc.BadRequest that lists the violations.
/// What would not fit into a response's trailers is cut off, and the cut is said.
absl::Status invalid_fields(const std::vector<FieldViolation>& violations);
absl::Status invalid_field(const std::string& field, const std::string& description);

/// The same Status with a google.rpc.RetryInfo.
absl::Status retry_after(absl::Status status, std::chrono::milliseconds delay);

/// The server has no room for the call now: kResourceExhausted with RetryInfo.
absl::Status server_busy(const std::string& reason, const std::string& message);

/// The translation for the wire; the details travel as a serialized google.rpc.Status. A Status
/// that the server worded (refusal and the functions above) is sent as it is, and one by gRPC's own
/// rules (CANCELLED, DEADLINE_EXCEEDED, UNIMPLEMENTED) gets an ErrorInfo. What storage reports
/// without a reason, and every kInternal and kUnknown, keeps its code but not its text: that is
/// logged under a random id, and the id is sent. kPermissionDenied of storage becomes kInternal.
grpc::Status to_grpc_status(const absl::Status& status);

}  // namespace qaas
