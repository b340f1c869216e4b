#include "server/upkeep.h"

#include <string>
#include <utility>
#include <vector>

#include <absl/strings/str_cat.h>

#include "telemetry/logging.h"

namespace qaas {
namespace {

LogLimiter& trouble_log() {
  static LogLimiter limiter(std::chrono::seconds(30));
  return limiter;
}

}  // namespace

Upkeep::Upkeep(UpkeepOptions options, Database& database, JobStore& jobs, ServerMetrics& metrics,
               std::function<void(bool)> set_serving)
    : options_(options),
      database_(database),
      jobs_(jobs),
      metrics_(metrics),
      set_serving_(std::move(set_serving)),
      contact_(options.lease, options.interval * 3),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

Upkeep::~Upkeep() { thread_.request_stop(); }

void Upkeep::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    if (look()) read_statistics();
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, stop, options_.interval, [] { return false; });
  }
}

bool Upkeep::look() {
  const absl::Status status = check_schema(database_);
  if (!status.ok()) {
    trouble_log().log(LogLevel::kError, absl::StrCat("not serving: ", status.ToString()));
  }
  metrics_.set_database_up(status.ok());
  set_serving_(status.ok());
  if (contact_.note(std::chrono::steady_clock::now(), status.ok())) rescue();
  return status.ok();
}

void Upkeep::rescue() {
  const absl::StatusOr<std::vector<std::string>> rescued = jobs_.rescue_expired();
  if (!rescued.ok()) {
    contact_.note(std::chrono::steady_clock::now(), false);
    trouble_log().log(LogLevel::kWarning,
                      absl::StrCat("cannot rescue jobs: ", rescued.status().ToString()));
    return;
  }
  for (const std::string& job : *rescued) {
    log_warning("rescued: its worker's lease expired", {.job = job});
  }
  metrics_.rescued_jobs().Increment(static_cast<double>(rescued->size()));
}

void Upkeep::read_statistics() {
  const auto now = std::chrono::steady_clock::now();
  if (statistics_read_ && now - *statistics_read_ < options_.statistics_interval) return;
  const absl::StatusOr<JobStore::Statistics> statistics = jobs_.statistics();
  if (!statistics.ok()) {
    trouble_log().log(LogLevel::kWarning,
                      absl::StrCat("cannot read job figures: ", statistics.status().ToString()));
    return;
  }
  statistics_read_ = now;
  metrics_.set_job_statistics(*statistics, std::chrono::system_clock::now());
}

}  // namespace qaas
