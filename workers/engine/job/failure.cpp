#include "workers/engine/job/failure.h"

#include <new>
#include <string>

#include <absl/strings/match.h>

namespace qaas {

v1::Failure failure_of(const absl::Status& status) {
  v1::Failure failure;
  failure.set_code(absl::StatusCodeToString(status.code()));
  failure.set_message(std::string(status.message()));
  switch (exit_code_of(status)) {
    case kExitCaller:
      failure.set_failure_class(v1::FAILURE_CLASS_CALLER);
      break;
    case kExitResource:
      failure.set_failure_class(v1::FAILURE_CLASS_RESOURCE);
      break;
    case kExitStopped:
      failure.set_failure_class(v1::FAILURE_CLASS_INFRASTRUCTURE);
      break;
    default:
      failure.set_failure_class(absl::IsUnavailable(status) ? v1::FAILURE_CLASS_INFRASTRUCTURE
                                                            : v1::FAILURE_CLASS_INTERNAL);
  }
  return failure;
}

ExitCode exit_code_of(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return kExitCaller;
    case absl::StatusCode::kResourceExhausted:
      return kExitResource;
    case absl::StatusCode::kCancelled:
      return kExitStopped;
    default:
      return kExitInternal;
  }
}

absl::Status status_of(const std::exception& error) {
  const std::string text = error.what();
  const std::string first_line = text.substr(0, text.find('\n'));
  // LibTorch reports a failed host allocation as a plain error that names its allocator.
  const bool out_of_memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
                             absl::StrContains(text, "out of memory") ||
                             absl::StrContains(text, "DefaultCPUAllocator: can't allocate");
  return out_of_memory ? absl::ResourceExhaustedError("out of memory: " + first_line)
                       : absl::InternalError(first_line);
}

}  // namespace qaas
