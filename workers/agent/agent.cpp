#include "workers/agent/agent.h"

#include <algorithm>
#include <random>
#include <utility>

#include <absl/strings/str_cat.h>

#include "telemetry/logging.h"

namespace qaas {

using Clock = AttemptControl::Clock;

Agent::Agent(AttemptContext context, AgentOptions options)
    : context_(context), options_(std::move(options)) {}

void Agent::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    woken_ = false;
    lock.unlock();
    const Pause pause = look();
    lock.lock();
    changed_.wait_for(lock, pause.time,
                      [&] { return stopping_ || (woken_ && pause.ends_at_wake); });
  }
}

void Agent::stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) {
      return;
    }
    stopping_ = true;
    if (running_ != nullptr) {
      running_->shut_down(Clock::now() + options_.attempt.engine.stop_grace + options_.handover);
    }
  }
  changed_.notify_all();
}

void Agent::wake() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    woken_ = true;
  }
  changed_.notify_all();
}

Agent::Pause Agent::look() {
  static LogLimiter log_limiter(std::chrono::seconds(10));
  thread_local std::minstd_rand random(std::random_device{}());
  const auto poll = std::chrono::milliseconds(std::uniform_int_distribution<int64_t>(
      options_.poll.count() / 2, options_.poll.count())(random));
  const Clock::time_point claimed_at = Clock::now();
  auto claimed = context_.jobs.claim(options_.name);
  if (!claimed.ok()) {
    log_limiter.log(LogLevel::kWarning,
                    absl::StrCat("cannot claim a job: ", claimed.status().ToString()));
    return {.time = poll};
  }
  if (!*claimed) {
    return {.time = poll};
  }
  const v1::Method method = (*claimed)->job.spec().method();
  const LogFields fields{.job = (*claimed)->lease.job_id, .attempt = (*claimed)->lease.attempt};
  log_info(absl::StrCat("claimed ", (*claimed)->job.spec().model(), ", ",
                        (*claimed)->checkpoints.size(), " checkpoints to start from"),
           fields);
  context_.metrics.claimed();

  AttemptControl control;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    running_ = &control;
    if (stopping_) {
      control.shut_down(Clock::now() + options_.handover);
    }
  }
  Attempt attempt(context_, options_.attempt, std::move(**claimed), control);
  const AttemptOutcome outcome = attempt.run(claimed_at);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    running_ = nullptr;
  }
  context_.metrics.attempt_ended(method, outcome, Clock::now() - claimed_at);
  log_info(absl::StrCat("attempt ended: ", outcome_name(outcome)), fields);
  // The job that has just failed is queued again and wakes every worker: that must not end the
  // rest.
  return {.time = rest_after(outcome, attempt.failure_class()), .ends_at_wake = false};
}

std::chrono::milliseconds Agent::rest_after(AttemptOutcome outcome,
                                            v1::FailureClass failure_class) {
  const bool maybe_ours =
      outcome == AttemptOutcome::kFailed && (failure_class == v1::FAILURE_CLASS_RESOURCE ||
                                             failure_class == v1::FAILURE_CLASS_INFRASTRUCTURE);
  failures_in_a_row_ = maybe_ours ? failures_in_a_row_ + 1 : 0;
  if (failures_in_a_row_ < 2) {
    return std::chrono::milliseconds(0);
  }
  const int doublings = std::min(failures_in_a_row_ - 2, 16);
  return std::min(options_.first_rest * (1 << doublings), options_.longest_rest);
}

}  // namespace qaas
