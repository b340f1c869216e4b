#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "storage/database/job_store.h"
#include "workers/agent/agent_metrics.h"
#include "workers/agent/attempt_control.h"

namespace qaas {

/// Keeps one attempt's lease: from construction to destruction a thread renews it every third of
/// its length, and a second thread, which never touches the database, tells `control` that the
/// lease has expired when the monotonic clock, counted from before the last renewal that succeeded,
/// passes its length. A job lost or to be cancelled is told to `control` by the next renewal.
class LeaseKeeper {
 public:
  using Clock = AttemptControl::Clock;

  /// `length` is the length the store was opened with; `claimed` a time before the claim was sent.
  LeaseKeeper(JobStore& store, Lease lease, std::chrono::milliseconds length,
              Clock::time_point claimed, AttemptControl& control, AgentMetrics& metrics);
  ~LeaseKeeper();

 private:
  void renew_until_stopped();
  void watch_until_stopped();

  JobStore& store_;
  const Lease lease_;
  const std::chrono::milliseconds length_;
  AttemptControl& control_;
  AgentMetrics& metrics_;

  std::mutex mutex_;  // never held during a database call
  std::condition_variable changed_;
  Clock::time_point expires_;
  bool stopped_ = false;

  std::thread renewer_;
  std::thread watchdog_;
};

}  // namespace qaas
