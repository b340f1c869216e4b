#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include "qaas/v1/event.pb.h"
#include "qaas/v1/job_spec.pb.h"

namespace qaas {

/// How an attempt ended, as seen by its worker; label `outcome` of metrics.
enum class AttemptOutcome {
  kSucceeded,
  kFailed,  ///< settled as failed, retried or not
  kCancelled,
  kReleased,   ///< handed back because the worker stops
  kLeaseLost,  ///< dropped: the job is someone else's, or may be
};

/// "succeeded", "failed", "cancelled", "released", "lease_lost".
std::string outcome_name(AttemptOutcome outcome);

/// The figures a worker shows at /metrics, all prefixed qaas_worker_. No job ids: they are in the
/// logs. Thread-safe.
class AgentMetrics {
 public:
  /// Registers everything in `registry`, which it keeps alive.
  explicit AgentMetrics(std::shared_ptr<prometheus::Registry> registry);

  void claimed();
  void lease_lost();
  void renewal_failed();
  void rescued(size_t jobs);
  void events_dropped(size_t events);
  /// `ending`: "succeeded", "stopped" (the worker asked for it), or a failure class's name.
  void engine_ended(const std::string& ending);
  /// An attempt is over; the worker is idle.
  void attempt_ended(v1::Method method, AttemptOutcome outcome, std::chrono::duration<double> time);

  void phase(v1::Phase phase);
  void progress(const v1::Progress& progress);
  /// Brings qaas_worker_seconds_since_last_step up to date; call about once a second.
  void tick();

 private:
  void show_phase(const std::string& name);

  std::shared_ptr<prometheus::Registry> registry_;
  std::map<std::string, prometheus::Gauge*> phases_;
  prometheus::Gauge& progress_;
  prometheus::Gauge& loss_;
  prometheus::Gauge& tokens_per_second_;
  prometheus::Gauge& since_last_step_;
  prometheus::Counter& claims_;
  prometheus::Counter& lease_losses_;
  prometheus::Counter& renewal_failures_;
  prometheus::Counter& rescues_;
  prometheus::Counter& events_dropped_;
  std::map<std::string, prometheus::Counter*> endings_;
  prometheus::Family<prometheus::Histogram>& durations_;

  std::mutex mutex_;  // guards what follows
  bool running_ = false;
  std::chrono::steady_clock::time_point last_step_{};
};

}  // namespace qaas
