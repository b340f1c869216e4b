#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "qaas/v1/event.pb.h"

namespace qaas {

/// Limits of the retry rule.
struct RetryOptions {
  /// Failed attempts before a job fails for good.
  int max_failures = 3;
  /// Wait after the first failure; doubles with each further one, up to max_backoff.
  std::chrono::milliseconds first_backoff{5000};
  std::chrono::milliseconds max_backoff{600000};
};

/// What happens to a job after a failed attempt.
struct RetryDecision {
  bool retry = false;
  std::chrono::milliseconds backoff{0};  ///< before the next attempt; 0 unless `retry`
  std::string reason;                    ///< in words fit for the job's owner
};

/// The one place that decides whether a failed attempt is retried. `earlier` holds the failures of
/// the job's earlier attempts. In this order: the caller's fault is never retried; a job that fails
/// at the same (known) position a second time is not; nor is one that has failed max_failures
/// times; nor one with a second internal failure. An unspecified class counts as internal.
RetryDecision decide_retry(const v1::Failure& failure, const std::vector<v1::Failure>& earlier,
                           const RetryOptions& options);

}  // namespace qaas
