#include "workers/agent/housekeeping.h"

#include <algorithm>
#include <string>
#include <vector>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include "storage/database/contact_clock.h"
#include "telemetry/logging.h"

namespace qaas {
namespace {

using Clock = std::chrono::steady_clock;

/// Prefixes asked about in one statement.
constexpr size_t kCollectBatch = 500;

}  // namespace

Housekeeping::Housekeeping(Database& database, JobStore& jobs, ArtifactStore& artifacts,
                           AgentMetrics& metrics, HousekeepingOptions options)
    : database_(database),
      jobs_(jobs),
      artifacts_(artifacts),
      metrics_(metrics),
      options_(options),
      thread_([this] { run(); }) {}

Housekeeping::~Housekeeping() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Housekeeping::run() {
  ContactClock contact(options_.lease, options_.lease);
  Clock::time_point next_collect = Clock::now();
  std::unique_lock<std::mutex> lock(mutex_);
  while (!changed_.wait_for(lock, options_.lease / 3, [this] { return stopped_; })) {
    lock.unlock();
    // The cheapest question there is; a database of another version is still in contact.
    const absl::Status answer = check_schema(database_);
    const bool reached = answer.ok() || absl::IsFailedPrecondition(answer);
    if (contact.note(Clock::now(), reached)) {
      rescue();
      if (Clock::now() >= next_collect) {
        collect();
        next_collect = Clock::now() + options_.collect_interval;
      }
    }
    lock.lock();
  }
}

void Housekeeping::rescue() {
  const auto rescued = jobs_.rescue_expired();
  if (!rescued.ok()) {
    log_warning(absl::StrCat("cannot rescue jobs: ", rescued.status().ToString()));
    return;
  }
  metrics_.rescued(rescued->size());
  for (const std::string& job : *rescued) {
    log_warning("took back a job whose worker let its lease run out", {.job = job});
  }
}

void Housekeeping::collect() {
  const auto prefixes = artifacts_.attempt_prefixes();
  if (!prefixes.ok()) {
    log_warning(absl::StrCat("cannot collect stored files: ", prefixes.status().ToString()));
    return;
  }
  for (size_t start = 0; start < prefixes->size(); start += kCollectBatch) {
    const size_t end = std::min(start + kCollectBatch, prefixes->size());
    const auto unused = jobs_.collectable(
        std::vector<std::string>(prefixes->begin() + static_cast<ptrdiff_t>(start),
                                 prefixes->begin() + static_cast<ptrdiff_t>(end)));
    if (!unused.ok()) {
      log_warning(absl::StrCat("cannot collect stored files: ", unused.status().ToString()));
      return;
    }
    const std::string* whole = nullptr;  // what was removed last, with all folders in it
    for (const std::string& prefix : *unused) {
      if (whole != nullptr && absl::StartsWith(prefix, *whole)) {
        continue;
      }
      const absl::Status removed = artifacts_.remove_prefix(prefix);
      if (removed.ok()) {
        whole = &prefix;
        log_info(absl::StrCat("removed '", prefix, "': no job names it any more"));
      } else {
        log_warning(absl::StrCat("cannot remove stored files: ", removed.ToString()));
      }
    }
  }
}

}  // namespace qaas
