#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "storage/artifacts/artifact_store.h"
#include "storage/database/database.h"
#include "storage/database/job_store.h"
#include "workers/agent/agent_metrics.h"

namespace qaas {

struct HousekeepingOptions {
  /// Length of a lease; the JobStore's.
  std::chrono::milliseconds lease{15000};
  /// Time between two collections of stored files that no job names any more.
  std::chrono::milliseconds collect_interval{3600000};
};

/// What any worker does for all of them, on a thread of its own from construction to destruction:
/// takes jobs of dead workers back, and removes what attempts left in the artifact store. Both only
/// after a full lease of uninterrupted contact with the database: after an outage every lease has
/// expired and nobody is dead.
class Housekeeping {
 public:
  Housekeeping(Database& database, JobStore& jobs, ArtifactStore& artifacts, AgentMetrics& metrics,
               HousekeepingOptions options);
  ~Housekeeping();

 private:
  void run();
  void rescue();
  void collect();

  Database& database_;
  JobStore& jobs_;
  ArtifactStore& artifacts_;
  AgentMetrics& metrics_;
  const HousekeepingOptions options_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace qaas
