#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>

#include "server/server_metrics.h"
#include "storage/database/contact_clock.h"
#include "storage/database/database.h"
#include "storage/database/job_store.h"

namespace qaas {

struct UpkeepOptions {
  /// How often the database is looked at, for health and rescue.
  std::chrono::milliseconds interval{2000};
  /// How often the job figures are read; counting costs 0.1 s at a million jobs.
  std::chrono::milliseconds statistics_interval{5000};
  /// The workers' lease length.
  std::chrono::milliseconds lease{15000};
};

/// The server's one background thread for the database: checks it and its schema version (health),
/// rescues jobs of vanished workers, reads the job figures.
class Upkeep {
 public:
  /// `set_serving` is told after each look whether the server can serve.
  Upkeep(UpkeepOptions options, Database& database, JobStore& jobs, ServerMetrics& metrics,
         std::function<void(bool serving)> set_serving);
  /// Waits for the look under way.
  ~Upkeep();
  Upkeep(const Upkeep&) = delete;
  Upkeep& operator=(const Upkeep&) = delete;

 private:
  void run(const std::stop_token& stop);
  bool look();
  void rescue();
  void read_statistics();

  const UpkeepOptions options_;
  Database& database_;
  JobStore& jobs_;
  ServerMetrics& metrics_;
  const std::function<void(bool)> set_serving_;
  ContactClock contact_;
  std::optional<std::chrono::steady_clock::time_point> statistics_read_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::jthread thread_;
};

}  // namespace qaas
