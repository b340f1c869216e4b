#pragma once

#include <chrono>
#include <optional>
#include <string>

#include <absl/status/status.h>
#include <grpcpp/support/status.h>

#include "qaas/v1/event.pb.h"

namespace qaas::cli {

/// Exit codes of the program, listed in --help. Scripts depend on them: never renumber.
enum class ExitCode {
  kOk = 0,
  kError = 1,
  kUsage = 2,  ///< a flag, a field or an argument is not acceptable
  kNotFound = 3,
  kUnavailable = 4,  ///< the server cannot be reached, is busy, or did not answer in time
  kJobFailed = 5,
  kJobCancelled = 6,
  kConflict = 7,  ///< refused in the present state: settled already, name or request id in use
  kDataLoss = 8,  ///< downloaded bytes do not have the announced size or digest
};

/// One paragraph for --help.
std::string exit_code_help();

ExitCode exit_code(const absl::Status& status);
/// For a job that has settled; kOk for a job that has not.
ExitCode exit_code(v1::JobState state);

/// A gRPC status as ours: same code and message, the google.rpc.Status of its details kept as a
/// payload for describe().
absl::Status from_grpc(const grpc::Status& status);

/// How long the server asked to wait before the same call may succeed (google.rpc.RetryInfo).
std::optional<std::chrono::milliseconds> retry_delay(const absl::Status& status);

/// "error: invalid argument: ..." and, for each field violation of the server, a line
/// "  weights.group_size: found 48; accepted: ...". Escaped for a terminal; ends with "\n".
std::string describe(const absl::Status& status);

}  // namespace qaas::cli
