#include "clients/cli/errors.h"

#include <algorithm>
#include <cctype>
#include <optional>

#include <absl/strings/cord.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include "clients/cli/text.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace qaas::cli {
namespace {

constexpr char kDetailsUrl[] = "type.googleapis.com/google.rpc.Status";

std::string code_words(absl::StatusCode code) {
  std::string words = absl::StatusCodeToString(code);
  std::transform(words.begin(), words.end(), words.begin(),
                 [](unsigned char c) { return c == '_' ? ' ' : std::tolower(c); });
  return words;
}

google::rpc::Status details_of(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kDetailsUrl);
  google::rpc::Status details;
  if (!payload.has_value() || !details.ParseFromString(std::string(*payload))) return {};
  return details;
}

}  // namespace

std::string exit_code_help() {
  return "Exit codes: 0 done; 1 error; 2 wrong flag or field; 3 not found; 4 server unreachable, "
         "busy or too slow; 5 job failed; 6 job cancelled; 7 refused in the present state (job "
         "settled, file or request id in use); 8 downloaded bytes do not match their digest.";
}

ExitCode exit_code(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return ExitCode::kOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return ExitCode::kUsage;
    case absl::StatusCode::kNotFound:
      return ExitCode::kNotFound;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
      return ExitCode::kUnavailable;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return ExitCode::kConflict;
    case absl::StatusCode::kDataLoss:
      return ExitCode::kDataLoss;
    default:
      return ExitCode::kError;
  }
}

ExitCode exit_code(v1::JobState state) {
  switch (state) {
    case v1::JOB_STATE_FAILED:
      return ExitCode::kJobFailed;
    case v1::JOB_STATE_CANCELLED:
      return ExitCode::kJobCancelled;
    default:
      return ExitCode::kOk;
  }
}

absl::Status from_grpc(const grpc::Status& status) {
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  if (!result.ok() && !status.error_details().empty()) {
    result.SetPayload(kDetailsUrl, absl::Cord(status.error_details()));
  }
  return result;
}

std::optional<std::chrono::milliseconds> retry_delay(const absl::Status& status) {
  const google::rpc::Status details = details_of(status);
  for (const google::protobuf::Any& detail : details.details()) {
    google::rpc::RetryInfo retry;
    if (!detail.UnpackTo(&retry)) continue;
    constexpr int64_t kMostSeconds = 3600;
    const int64_t seconds = std::clamp<int64_t>(retry.retry_delay().seconds(), 0, kMostSeconds);
    return std::chrono::milliseconds(seconds * 1000 + retry.retry_delay().nanos() / 1'000'000);
  }
  return std::nullopt;
}

std::string describe(const absl::Status& status) {
  const std::string message(status.message());
  std::string lines;
  bool repeated = false;  // the service's message for people without details says the same
  const google::rpc::Status details = details_of(status);
  for (const google::protobuf::Any& detail : details.details()) {
    google::rpc::BadRequest bad_request;
    if (!detail.UnpackTo(&bad_request)) continue;
    for (const google::rpc::BadRequest::FieldViolation& v : bad_request.field_violations()) {
      const std::string line = absl::StrCat(v.field(), ": ", v.description());
      repeated = repeated || (lines.empty() && absl::StartsWith(message, line));
      absl::StrAppend(&lines, "  ", printable(line), "\n");
    }
  }
  return absl::StrCat("error: ", code_words(status.code()), repeated ? "" : ": ",
                      repeated ? "" : printable(message), "\n", lines);
}

}  // namespace qaas::cli
