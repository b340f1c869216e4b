#include "workers/agent/retry.h"

#include <algorithm>
#include <chrono>

#include "telemetry/logging.h"

namespace qaas {

bool is_passing(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status) ||
         absl::IsUnknown(status) || absl::IsDeadlineExceeded(status);
}

absl::Status retry_write(AttemptControl& control, const std::function<absl::Status()>& write) {
  using Clock = AttemptControl::Clock;
  LogLimiter log_limiter(std::chrono::seconds(10));
  std::chrono::milliseconds pause(100);
  while (true) {
    const absl::Status status = write();
    if (absl::IsAborted(status)) {
      control.lose();
    }
    if (!is_passing(status)) {
      return status;
    }
    log_limiter.log(LogLevel::kWarning, "will try again: " + status.ToString());
    const Clock::time_point give_up = control.give_up_at();
    if (Clock::now() >= give_up) {
      return status;
    }
    const auto signals =
        control.wait_until(std::min(Clock::now() + pause, give_up),
                           [](const AttemptControl::Signals& now) { return now.lost; });
    if (signals.lost) {
      return absl::AbortedError("the lease was lost");
    }
    pause = std::min(pause * 2, std::chrono::milliseconds(2000));
  }
}

}  // namespace qaas
