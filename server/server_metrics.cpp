#include "server/server_metrics.h"

#include <utility>

namespace qaas {
namespace {

// Most calls are one indexed query; a submit hashes and validates; streams last as long as jobs.
const prometheus::Histogram::BucketBoundaries& latency_buckets() {
  static const prometheus::Histogram::BucketBoundaries kBuckets = {
      0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3600};
  return kBuckets;
}

const char* code_name(grpc::StatusCode code) {
  static constexpr const char* kNames[] = {"OK",
                                           "CANCELLED",
                                           "UNKNOWN",
                                           "INVALID_ARGUMENT",
                                           "DEADLINE_EXCEEDED",
                                           "NOT_FOUND",
                                           "ALREADY_EXISTS",
                                           "PERMISSION_DENIED",
                                           "RESOURCE_EXHAUSTED",
                                           "FAILED_PRECONDITION",
                                           "ABORTED",
                                           "OUT_OF_RANGE",
                                           "UNIMPLEMENTED",
                                           "INTERNAL",
                                           "UNAVAILABLE",
                                           "DATA_LOSS",
                                           "UNAUTHENTICATED"};
  const auto index = static_cast<size_t>(code);
  return index < std::size(kNames) ? kNames[index] : "UNKNOWN";
}

prometheus::Family<prometheus::Counter>& counters(prometheus::Registry& registry, const char* name,
                                                  const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

prometheus::Family<prometheus::Gauge>& gauges(prometheus::Registry& registry, const char* name,
                                              const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}

}  // namespace

ServerMetrics::ServerMetrics(std::shared_ptr<prometheus::Registry> registry)
    : registry_(std::move(registry)),
      rpcs_(counters(*registry_, "qaas_server_rpcs_total", "Calls ended, by method and code.")),
      rpc_duration_(prometheus::BuildHistogram()
                        .Name("qaas_server_rpc_duration_seconds")
                        .Help("Time from the start of a call to its end, by method.")
                        .Register(*registry_)),
      pool_threads_(gauges(*registry_, "qaas_server_pool_threads", "Threads of a pool.")),
      pool_busy_(gauges(*registry_, "qaas_server_pool_busy_threads", "Threads at work.")),
      pool_queued_(gauges(*registry_, "qaas_server_pool_queued_tasks", "Tasks waiting.")),
      pool_queue_capacity_(gauges(*registry_, "qaas_server_pool_queue_capacity",
                                  "Tasks that may wait before calls are refused.")),
      pool_refused_(counters(*registry_, "qaas_server_pool_refused_total",
                             "Tasks refused because the queue was full.")),
      jobs_(gauges(*registry_, "qaas_jobs", "Jobs by state, as of the last refresh.")),
      oldest_queued_(gauges(*registry_, "qaas_oldest_queued_job_age_seconds",
                            "Age of the oldest queued job; 0 when none waits.")
                         .Add({})),
      statistics_time_(gauges(*registry_, "qaas_job_statistics_timestamp_seconds",
                              "Unix time at which the job figures were read.")
                           .Add({})),
      database_up_(gauges(*registry_, "qaas_server_database_up",
                          "1 if the database answers and has this build's schema version.")
                       .Add({})),
      models_(gauges(*registry_, "qaas_server_models", "Folders under the model root by state.")),
      watchers_(gauges(*registry_, "qaas_server_watchers", "WatchJob streams open.").Add({})),
      downloads_(
          gauges(*registry_, "qaas_server_downloads", "DownloadArtifact streams open.").Add({})),
      download_bytes_(
          counters(*registry_, "qaas_server_download_bytes_total", "Artifact bytes handed to gRPC.")
              .Add({})),
      rescued_jobs_(counters(*registry_, "qaas_server_rescued_jobs_total",
                             "Jobs this server took back from workers that vanished.")
                        .Add({})) {}

void ServerMetrics::rpc_finished(const std::string& method, grpc::StatusCode code,
                                 std::chrono::duration<double> duration) {
  rpcs_.Add({{"method", method}, {"code", code_name(code)}}).Increment();
  rpc_duration_.Add({{"method", method}}, latency_buckets()).Observe(duration.count());
}

PoolMetrics ServerMetrics::pool(const std::string& pool, int threads, int queue_capacity) {
  const prometheus::Labels labels = {{"pool", pool}};
  pool_threads_.Add(labels).Set(threads);
  pool_queue_capacity_.Add(labels).Set(queue_capacity);
  return {.busy = pool_busy_.Add(labels),
          .queued = pool_queued_.Add(labels),
          .refused = pool_refused_.Add(labels)};
}

void ServerMetrics::set_job_statistics(const JobStore::Statistics& statistics,
                                       std::chrono::system_clock::time_point now) {
  for (const auto& [state, count] : statistics.jobs_by_state) {
    jobs_.Add({{"state", state}}).Set(static_cast<double>(count));
  }
  oldest_queued_.Set(statistics.oldest_queued_seconds);
  statistics_time_.Set(std::chrono::duration<double>(now.time_since_epoch()).count());
}

void ServerMetrics::set_models(const std::map<std::string, int>& by_state) {
  for (const auto& [state, count] : by_state) models_.Add({{"state", state}}).Set(count);
}

}  // namespace qaas
