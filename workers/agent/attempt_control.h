#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>

#include "workers/agent/child_process.h"

namespace qaas {

/// What the threads of one attempt tell each other: that the engine has ended, and why the attempt
/// should stop. Losing the lease kills the engine at once, on the thread that noticed, whatever
/// the others are blocked in. Thread-safe; no method waits for the database or the disk.
class AttemptControl {
 public:
  using Clock = std::chrono::steady_clock;

  struct Signals {
    bool engine_ended = false;
    bool cancel = false;    ///< the job's owner asked for it
    bool shutdown = false;  ///< the worker is stopping
    bool lost = false;      ///< the job is someone else's: nothing may be written any more
    bool expired = false;   ///< the lease may have run out; writes are still fenced
  };

  /// The engine that lose and expire kill; nullptr before it starts and once it is reaped.
  void set_engine(ChildProcess* engine);

  void engine_ended();
  void cancel();
  /// The worker is stopping: work that retries gives up at `give_up`.
  void shut_down(Clock::time_point give_up);
  void lose();
  void expire();

  Signals signals() const;
  /// When retries must end: far in the future until the worker is stopping.
  Clock::time_point give_up_at() const;

  /// Waits until `wanted` holds or `deadline` has come; returns the signals then.
  Signals wait_until(Clock::time_point deadline, const std::function<bool(const Signals&)>& wanted);

 private:
  void change(const std::function<void()>& apply);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Signals signals_;
  Clock::time_point give_up_at_ = Clock::time_point::max();
  ChildProcess* engine_ = nullptr;
};

}  // namespace qaas
