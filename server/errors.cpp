#include "server/errors.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <random>

#include <absl/strings/cord.h>
#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "telemetry/logging.h"

namespace qaas {
namespace {

constexpr char kErrorInfoUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr char kBadRequestUrl[] = "type.googleapis.com/google.rpc.BadRequest";
constexpr char kRetryInfoUrl[] = "type.googleapis.com/google.rpc.RetryInfo";

// A client refuses trailers of more than 8 KiB, and details are sent as base64.
constexpr size_t kLongestMessage = 1024;
constexpr size_t kLongestViolationText = 960;
constexpr size_t kLongestDescription = 320;
constexpr size_t kMostViolationBytes = 3072;
constexpr std::chrono::milliseconds kBusyRetry{1000};

std::string cut(const std::string& text, size_t longest) {
  if (text.size() <= longest) return text;
  size_t end = longest;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return absl::StrCat(text.substr(0, end), "...");
}

template <typename Message>
void attach(absl::Status& status, const char* url, const Message& message) {
  status.SetPayload(url, absl::Cord(message.SerializeAsString()));
}

// Reasons of errors that come from storage or gRPC, which know no reasons.
const char* default_reason(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return "ARGUMENT_INVALID";
    case absl::StatusCode::kNotFound:
      return "NOT_FOUND";
    case absl::StatusCode::kAlreadyExists:
      return "REQUEST_ID_REUSED";
    case absl::StatusCode::kFailedPrecondition:
      return "STATE_CONFLICT";
    case absl::StatusCode::kOutOfRange:
      return "OUT_OF_RANGE";
    case absl::StatusCode::kResourceExhausted:
      return "SERVER_BUSY";
    case absl::StatusCode::kUnavailable:
      return "SERVICE_UNAVAILABLE";
    case absl::StatusCode::kDeadlineExceeded:
      return "DEADLINE_EXCEEDED";
    case absl::StatusCode::kCancelled:
      return "CANCELLED";
    case absl::StatusCode::kUnimplemented:
      return "UNIMPLEMENTED";
    case absl::StatusCode::kDataLoss:
      return "DATA_LOSS";
    default:
      return "INTERNAL";
  }
}

// What a caller is told of an error that storage reports without a reason. Its own text names
// hosts, roles, keys and statements, which are not the caller's business.
const char* public_words(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return "a value in the request cannot be stored: a NUL character, or a number out of range";
    case absl::StatusCode::kResourceExhausted:
      return "the service has no room for the call now; try again later";
    case absl::StatusCode::kUnavailable:
      return "the service cannot reach its database or its files now; try again later";
    case absl::StatusCode::kDataLoss:
      return "a stored file is damaged";
    default:
      return "the service failed";
  }
}

bool comes_from_storage(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
      return true;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kPermissionDenied:
      return !status.GetPayload(kErrorInfoUrl).has_value();
    default:
      return false;
  }
}

std::string random_id() {
  thread_local std::mt19937_64 generator{std::random_device{}()};
  return absl::StrCat(absl::Hex(generator(), absl::kZeroPad16));
}

}  // namespace

absl::Status refusal(absl::StatusCode code, const std::string& reason, const std::string& message,
                     const std::map<std::string, std::string>& metadata) {
  absl::Status status(code, cut(message, kLongestMessage));
  google::rpc::ErrorInfo detail;
  detail.set_reason(reason);
  detail.set_domain("qaas");
  for (const auto& [key, value] : metadata) {
    (*detail.mutable_metadata())[key] = cut(value, kLongestDescription);
  }
  attach(status, kErrorInfoUrl, detail);
  return status;
}

absl::Status with_reason(const absl::Status& status, const std::string& reason) {
  return refusal(status.code(), reason, std::string(status.message()));
}

absl::Status job_error(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return with_reason(status, "JOB_NOT_FOUND");
    case absl::StatusCode::kAlreadyExists:
      return with_reason(status, "REQUEST_ID_REUSED");
    case absl::StatusCode::kFailedPrecondition:
      return with_reason(status, "JOB_SETTLED");
    default:
      return status;
  }
}

absl::Status invalid_fields(const std::vector<FieldViolation>& violations) {
  google::rpc::BadRequest detail;
  std::string message;
  size_t detail_bytes = 0;
  size_t told = 0;  // in the message, which has less room than the detail
  for (const FieldViolation& violation : violations) {
    const std::string field = cut(violation.field, kLongestDescription);
    const std::string description = cut(violation.description, kLongestDescription);
    const std::string text = absl::StrCat(told == 0 ? "" : "; ", field, ": ", description);
    if (message.size() + text.size() <= kLongestViolationText) {
      message += text;
      ++told;
    }
    detail_bytes += field.size() + description.size();
    if (detail_bytes > kMostViolationBytes) break;
    auto* added = detail.add_field_violations();
    added->set_field(field);
    added->set_description(description);
  }
  if (told < violations.size()) {
    absl::StrAppend(&message, "; and ", violations.size() - told, " more");
  }
  std::map<std::string, std::string> metadata;
  if (!violations.empty()) metadata["field"] = violations.front().field;
  absl::Status status =
      refusal(absl::StatusCode::kInvalidArgument, "FIELD_INVALID", message, metadata);
  attach(status, kBadRequestUrl, detail);
  return status;
}

absl::Status invalid_field(const std::string& field, const std::string& description) {
  return invalid_fields({{.field = field, .description = description}});
}

absl::Status retry_after(absl::Status status, std::chrono::milliseconds delay) {
  google::rpc::RetryInfo detail;
  detail.mutable_retry_delay()->set_seconds(delay.count() / 1000);
  detail.mutable_retry_delay()->set_nanos(static_cast<int32_t>(delay.count() % 1000) * 1000000);
  attach(status, kRetryInfoUrl, detail);
  return status;
}

absl::Status server_busy(const std::string& reason, const std::string& message) {
  return retry_after(refusal(absl::StatusCode::kResourceExhausted, reason, message), kBusyRetry);
}

grpc::Status to_grpc_status(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  absl::Status sent = status;
  if (comes_from_storage(status)) {
    const std::string id = random_id();
    log_error(status.ToString(), {.request_id = id});
    // Permissions that the service lacks are its own trouble: no caller can mend them.
    const absl::StatusCode code = status.code() == absl::StatusCode::kPermissionDenied
                                      ? absl::StatusCode::kInternal
                                      : status.code();
    sent = refusal(
        code, default_reason(code),
        absl::StrCat(public_words(code), "; the service's log says more under request id ", id),
        {{"request_id", id}});
    if (code == absl::StatusCode::kResourceExhausted || code == absl::StatusCode::kUnavailable) {
      sent = retry_after(sent, kBusyRetry);
    }
  } else if (!status.GetPayload(kErrorInfoUrl).has_value()) {
    sent = refusal(status.code(), default_reason(status.code()), std::string(status.message()));
    status.ForEachPayload([&sent](absl::string_view url, const absl::Cord& payload) {
      sent.SetPayload(url, payload);
    });
  }
  google::rpc::Status wire;
  wire.set_code(static_cast<int>(sent.code()));
  wire.set_message(std::string(sent.message()));
  for (const char* url : {kErrorInfoUrl, kBadRequestUrl, kRetryInfoUrl}) {
    const absl::optional<absl::Cord> payload = sent.GetPayload(url);
    if (!payload.has_value()) continue;
    auto* detail = wire.add_details();
    detail->set_type_url(url);
    detail->set_value(std::string(*payload));
  }
  return {static_cast<grpc::StatusCode>(sent.code()), wire.message(), wire.SerializeAsString()};
}

}  // namespace qaas
