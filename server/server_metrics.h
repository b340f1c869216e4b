#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>

#include <grpcpp/support/status_code_enum.h>
#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include "server/bounded_pool.h"
#include "storage/database/job_store.h"

namespace qaas {

/// Method label of calls to methods that this server does not have: one series, whatever is called.
inline constexpr char kOtherMethod[] = "other";

/// Every metric of qaas-server, by its one name. Labels take values from fixed sets only: no job,
/// model or caller's text. Thread-safe.
class ServerMetrics {
 public:
  explicit ServerMetrics(std::shared_ptr<prometheus::Registry> registry);

  /// A call of `method` ("qaas.v1.QuantizationService/GetJob") has ended.
  void rpc_finished(const std::string& method, grpc::StatusCode code,
                    std::chrono::duration<double> duration);

  /// Metrics of the pool called `pool` ("sql", "disk"). Sizes are set once, here.
  PoolMetrics pool(const std::string& pool, int threads, int queue_capacity);

  prometheus::Gauge& watchers() { return watchers_; }
  prometheus::Gauge& downloads() { return downloads_; }
  prometheus::Counter& download_bytes() { return download_bytes_; }
  prometheus::Counter& rescued_jobs() { return rescued_jobs_; }

  /// Figures of the job table, read once an interval; `now` tells a stopped refresh from a quiet
  /// queue.
  void set_job_statistics(const JobStore::Statistics& statistics,
                          std::chrono::system_clock::time_point now);
  /// Whether the last look at the database, schema version included, was good.
  void set_database_up(bool up) { database_up_.Set(up ? 1 : 0); }
  /// Folders under the model root by state ("ready", "scanning", "invalid").
  void set_models(const std::map<std::string, int>& by_state);

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>& rpcs_;
  prometheus::Family<prometheus::Histogram>& rpc_duration_;
  prometheus::Family<prometheus::Gauge>& pool_threads_;
  prometheus::Family<prometheus::Gauge>& pool_busy_;
  prometheus::Family<prometheus::Gauge>& pool_queued_;
  prometheus::Family<prometheus::Gauge>& pool_queue_capacity_;
  prometheus::Family<prometheus::Counter>& pool_refused_;
  prometheus::Family<prometheus::Gauge>& jobs_;
  prometheus::Gauge& oldest_queued_;
  prometheus::Gauge& statistics_time_;
  prometheus::Gauge& database_up_;
  prometheus::Family<prometheus::Gauge>& models_;
  prometheus::Gauge& watchers_;
  prometheus::Gauge& downloads_;
  prometheus::Counter& download_bytes_;
  prometheus::Counter& rescued_jobs_;
};

}  // namespace qaas
