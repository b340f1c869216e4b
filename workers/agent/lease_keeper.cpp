#include "workers/agent/lease_keeper.h"

#include <algorithm>
#include <utility>

#include "telemetry/logging.h"

namespace qaas {

LeaseKeeper::LeaseKeeper(JobStore& store, Lease lease, std::chrono::milliseconds length,
                         Clock::time_point claimed, AttemptControl& control, AgentMetrics& metrics)
    : store_(store),
      lease_(std::move(lease)),
      length_(length),
      control_(control),
      metrics_(metrics),
      expires_(claimed + length),
      renewer_([this] { renew_until_stopped(); }),
      watchdog_([this] { watch_until_stopped(); }) {}

LeaseKeeper::~LeaseKeeper() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  renewer_.join();
  watchdog_.join();
}

void LeaseKeeper::renew_until_stopped() {
  const LogFields fields{.job = lease_.job_id, .attempt = lease_.attempt};
  LogLimiter log_limiter(std::chrono::seconds(10));
  Clock::time_point next = Clock::now() + length_ / 3;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!changed_.wait_until(lock, next, [this] { return stopped_; })) {
    lock.unlock();
    const Clock::time_point before = Clock::now();
    const auto state = store_.renew(lease_);
    next = before + length_ / 3;
    bool held = false;
    if (absl::IsAborted(state.status()) || (state.ok() && *state == LeaseState::kLost)) {
      control_.lose();
      return;
    }
    if (!state.ok()) {
      metrics_.renewal_failed();
      log_limiter.log(LogLevel::kWarning, "cannot renew the lease: " + state.status().ToString(),
                      fields);
      next = before + std::min<Clock::duration>(length_ / 10, std::chrono::seconds(1));
    } else {
      held = true;
      if (*state == LeaseState::kCancelRequested) {
        control_.cancel();
      }
    }
    lock.lock();
    if (held) {
      expires_ = before + length_;
      changed_.notify_all();
    }
  }
}

void LeaseKeeper::watch_until_stopped() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopped_) {
    const Clock::time_point expires = expires_;
    if (Clock::now() >= expires) {
      control_.expire();
      return;
    }
    changed_.wait_until(lock, expires);
  }
}

}  // namespace qaas
