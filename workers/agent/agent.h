#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "workers/agent/attempt.h"

/// The worker without torch: Agent claims jobs; an Attempt takes one from claim to settlement with
/// a LeaseKeeper (renewal and watchdog), a ChildProcess (the engine), an EventSender (events and
/// checkpoints to the database and the store) and the failure table (what an ending means); an
/// AttemptControl is what their threads tell each other. Housekeeping rescues and collects for all.
namespace qaas {

/// Settings of a worker's claiming.
struct AgentOptions {
  /// The worker's name in the database and in events.
  std::string name;
  /// Longest time between two looks at the queue when nothing wakes the agent; each is drawn
  /// between half of it and all of it, so that workers do not look in step.
  std::chrono::milliseconds poll{5000};
  /// Time for uploading the last checkpoint and giving the job back, once the engine is stopped.
  std::chrono::milliseconds handover{60000};
  /// After two failures in a row that may be this machine's (resource, infrastructure), the worker
  /// waits this long before it claims again, then twice as long, and so on to the maximum: a broken
  /// machine must not eat the retries of every job in the queue.
  std::chrono::milliseconds first_rest{2000};
  std::chrono::milliseconds longest_rest{60000};
  AttemptOptions attempt;
};

/// Claims jobs and works on them, one at a time.
class Agent {
 public:
  Agent(AttemptContext context, AgentOptions options);

  /// Works until stop. Call it on a thread that lives as long as the program: the engine is killed
  /// when that thread ends.
  void run();

  /// Thread-safe. Claims no more; the running job's engine is told to write a checkpoint and end,
  /// the job is given back, and run returns within engine.stop_grace + handover and the time limits
  /// of what it is blocked in. Only the first call counts.
  void stop();

  /// Thread-safe. Looks at the queue now if idle and not at rest after failures: something may have
  /// been queued.
  void wake();

 private:
  /// How long to wait before the next look at the queue.
  struct Pause {
    std::chrono::milliseconds time{0};
    bool ends_at_wake = true;
  };

  /// One look at the queue and, if it held a job, the attempt.
  Pause look();
  std::chrono::milliseconds rest_after(AttemptOutcome outcome, v1::FailureClass failure_class);

  AttemptContext context_;
  const AgentOptions options_;
  int failures_in_a_row_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  bool woken_ = false;
  AttemptControl* running_ = nullptr;
};

}  // namespace qaas
