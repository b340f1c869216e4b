#include "workers/agent/agent_metrics.h"

#include <utility>

#include <absl/strings/ascii.h>
#include <absl/strings/strip.h>

#include "workers/agent/failure_table.h"
#include "workers/agent/phase_names.h"

namespace qaas {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Registry;

constexpr char kIdle[] = "idle";

prometheus::Gauge& add_gauge(Registry& registry, const std::string& name, const std::string& help) {
  return BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Counter& add_counter(Registry& registry, const std::string& name,
                                 const std::string& help) {
  return BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

std::string method_name(v1::Method method) {
  if (method == v1::METHOD_UNSPECIFIED || !v1::Method_IsValid(method)) {
    return "other";
  }
  const std::string& name = v1::Method_Name(method);
  return absl::AsciiStrToLower(absl::StripPrefix(name, "METHOD_"));
}

/// From a second to a day, each about twice the one before.
prometheus::Histogram::BucketBoundaries duration_buckets() {
  return {1, 2, 5, 10, 20, 45, 90, 180, 300, 600, 1200, 2700, 5400, 10800, 21600, 43200, 86400};
}

}  // namespace

std::string outcome_name(AttemptOutcome outcome) {
  switch (outcome) {
    case AttemptOutcome::kSucceeded:
      return "succeeded";
    case AttemptOutcome::kFailed:
      return "failed";
    case AttemptOutcome::kCancelled:
      return "cancelled";
    case AttemptOutcome::kReleased:
      return "released";
    case AttemptOutcome::kLeaseLost:
      return "lease_lost";
  }
  return "failed";
}

AgentMetrics::AgentMetrics(std::shared_ptr<Registry> registry)
    : registry_(std::move(registry)),
      progress_(add_gauge(*registry_, "qaas_worker_job_progress_ratio",
                          "Share of the running job that is done, 0 to 1; 0 when idle")),
      loss_(add_gauge(*registry_, "qaas_worker_training_loss",
                      "Training loss over the last steps of the running job; 0 when idle")),
      tokens_per_second_(add_gauge(*registry_, "qaas_worker_tokens_per_second",
                                   "Tokens the running job trains or scores per second")),
      since_last_step_(add_gauge(*registry_, "qaas_worker_seconds_since_last_step",
                                 "Seconds since the running job was last heard of; 0 when idle")),
      claims_(add_counter(*registry_, "qaas_worker_claims_total", "Jobs claimed")),
      lease_losses_(add_counter(*registry_, "qaas_worker_lease_losses_total",
                                "Attempts dropped because their lease was lost or ran out")),
      renewal_failures_(add_counter(*registry_, "qaas_worker_lease_renewal_failures_total",
                                    "Lease renewals that did not reach the database")),
      rescues_(add_counter(*registry_, "qaas_worker_rescues_total",
                           "Jobs of other workers taken back after their lease ran out")),
      events_dropped_(
          add_counter(*registry_, "qaas_worker_events_dropped_total",
                      "Engine events dropped because the database was away for too long")),
      durations_(BuildHistogram()
                     .Name("qaas_worker_job_duration_seconds")
                     .Help("Time from claim to the end of an attempt")
                     .Register(*registry_)) {
  auto& phases = BuildGauge()
                     .Name("qaas_worker_phase")
                     .Help("1 for the phase the worker is in, 0 for the others")
                     .Register(*registry_);
  phases_[kIdle] = &phases.Add({{"phase", kIdle}});
  for (const std::string& name : all_phase_names()) {
    phases_[name] = &phases.Add({{"phase", name}});
  }
  auto& endings = BuildCounter()
                      .Name("qaas_worker_engine_endings_total")
                      .Help("Engine processes that ended, by failure class")
                      .Register(*registry_);
  for (const char* ending :
       {"succeeded", "stopped", "caller", "resource", "infrastructure", "internal"}) {
    endings_[ending] = &endings.Add({{"class", ending}});
  }
  show_phase(kIdle);
}

void AgentMetrics::claimed() {
  claims_.Increment();
  phase(v1::PHASE_LOADING);
}

void AgentMetrics::lease_lost() { lease_losses_.Increment(); }
void AgentMetrics::renewal_failed() { renewal_failures_.Increment(); }
void AgentMetrics::rescued(size_t jobs) { rescues_.Increment(static_cast<double>(jobs)); }

void AgentMetrics::events_dropped(size_t events) {
  events_dropped_.Increment(static_cast<double>(events));
}

void AgentMetrics::engine_ended(const std::string& ending) { endings_.at(ending)->Increment(); }

void AgentMetrics::attempt_ended(v1::Method method, AttemptOutcome outcome,
                                 std::chrono::duration<double> time) {
  durations_
      .Add({{"method", method_name(method)}, {"outcome", outcome_name(outcome)}},
           duration_buckets())
      .Observe(time.count());
  const std::lock_guard<std::mutex> lock(mutex_);
  running_ = false;
  for (prometheus::Gauge* gauge : {&progress_, &loss_, &tokens_per_second_, &since_last_step_}) {
    gauge->Set(0);
  }
  show_phase(kIdle);
}

void AgentMetrics::phase(v1::Phase phase) {
  const std::lock_guard<std::mutex> lock(mutex_);
  running_ = true;
  last_step_ = std::chrono::steady_clock::now();
  show_phase(phase_name(phase));
}

void AgentMetrics::progress(const v1::Progress& progress) {
  const std::lock_guard<std::mutex> lock(mutex_);
  running_ = true;
  last_step_ = std::chrono::steady_clock::now();
  progress_.Set(progress.fraction());
  loss_.Set(progress.loss());
  tokens_per_second_.Set(progress.tokens_per_second());
  if (progress.phase() != v1::PHASE_UNSPECIFIED) {
    show_phase(phase_name(progress.phase()));
  }
}

void AgentMetrics::tick() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (running_) {
    const std::chrono::duration<double> since = std::chrono::steady_clock::now() - last_step_;
    since_last_step_.Set(since.count());
  }
}

void AgentMetrics::show_phase(const std::string& name) {
  for (auto& [phase, gauge] : phases_) {
    gauge->Set(phase == name ? 1 : 0);
  }
}

}  // namespace qaas
