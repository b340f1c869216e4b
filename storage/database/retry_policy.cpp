#include "storage/database/retry_policy.h"

#include <algorithm>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

namespace qaas {
namespace {

bool is_internal(const v1::Failure& failure) {
  return failure.failure_class() == v1::FAILURE_CLASS_INTERNAL ||
         failure.failure_class() == v1::FAILURE_CLASS_UNSPECIFIED;
}

std::chrono::milliseconds backoff_after(int failures, const RetryOptions& options) {
  std::chrono::milliseconds backoff = options.first_backoff;
  for (int i = 1; i < failures && backoff < options.max_backoff; ++i) backoff *= 2;
  return std::min(backoff, options.max_backoff);
}

}  // namespace

RetryDecision decide_retry(const v1::Failure& failure, const std::vector<v1::Failure>& earlier,
                           const RetryOptions& options) {
  const int failures = static_cast<int>(earlier.size()) + 1;
  if (failure.failure_class() == v1::FAILURE_CLASS_CALLER) {
    return {.reason = "the job cannot succeed as submitted"};
  }
  const bool same_position =
      !failure.position().empty() &&
      std::any_of(earlier.begin(), earlier.end(),
                  [&](const v1::Failure& other) { return other.position() == failure.position(); });
  if (same_position) {
    return {.reason = absl::StrCat("failed at ", failure.position(), " for the second time")};
  }
  if (failures >= options.max_failures) {
    return {.reason = absl::StrCat("failed ", failures, " times, which is the limit")};
  }
  if (is_internal(failure) && std::any_of(earlier.begin(), earlier.end(), is_internal)) {
    return {.reason = "failed for the second time inside the service"};
  }
  const std::chrono::milliseconds backoff = backoff_after(failures, options);
  return {.retry = true,
          .backoff = backoff,
          .reason = absl::StrFormat("attempt failed, will be retried in %.3g s",
                                    static_cast<double>(backoff.count()) / 1000)};
}

}  // namespace qaas
