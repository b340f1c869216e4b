#include "workers/agent/attempt_control.h"

#include <csignal>

namespace qaas {

void AttemptControl::change(const std::function<void()>& apply) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    apply();
    if (engine_ != nullptr && (signals_.lost || signals_.expired)) {
      engine_->signal_group(SIGKILL);
    }
  }
  changed_.notify_all();
}

void AttemptControl::set_engine(ChildProcess* engine) {
  change([&] { engine_ = engine; });
}

void AttemptControl::engine_ended() {
  change([&] { signals_.engine_ended = true; });
}

void AttemptControl::cancel() {
  change([&] { signals_.cancel = true; });
}

void AttemptControl::shut_down(Clock::time_point give_up) {
  change([&] {
    signals_.shutdown = true;
    give_up_at_ = give_up;
  });
}

void AttemptControl::lose() {
  change([&] { signals_.lost = true; });
}

void AttemptControl::expire() {
  change([&] { signals_.expired = true; });
}

AttemptControl::Signals AttemptControl::signals() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return signals_;
}

AttemptControl::Clock::time_point AttemptControl::give_up_at() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return give_up_at_;
}

AttemptControl::Signals AttemptControl::wait_until(
    Clock::time_point deadline, const std::function<bool(const Signals&)>& wanted) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_until(lock, deadline, [&] { return wanted(signals_); });
  return signals_;
}

}  // namespace qaas
