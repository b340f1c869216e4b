#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>

#include <absl/status/statusor.h>

#include "storage/database/job_store.h"
#include "telemetry/listen_address.h"

namespace qaas {

/// Every setting of qaas-server. Checked by Server::start.
struct ServerOptions {
  ListenAddress listen{.host = "127.0.0.1", .port = 50051, .loopback = true};
  ListenAddress metrics{.host = "127.0.0.1", .port = 9464, .loopback = true};
  std::string dsn;                  ///< PostgreSQL; never logged
  std::filesystem::path models;     ///< model root; must exist
  std::filesystem::path datasets;   ///< dataset root; must exist
  std::filesystem::path artifacts;  ///< artifact store, shared with the workers; made if missing
  /// Lease and retry rules; must equal the workers', since a server rescues their jobs.
  JobStoreOptions jobs;

  int sql_threads = 6;      ///< calls that use the database at once; one connection each
  int sql_queue = 256;      ///< calls that wait for one; more are refused
  int watch_threads = 2;    ///< threads that read events for all watchers; one connection each
  int max_watchers = 1000;  ///< WatchJob streams at once
  int disk_threads = 4;     ///< reads of artifact files at once
  int max_downloads = 64;   ///< DownloadArtifact streams at once
  int max_request_bytes = 1 << 20;                      ///< larger requests are refused by gRPC
  int max_streams_per_connection = 256;                 ///< calls at once over one connection
  std::chrono::milliseconds watch_poll_interval{3000};  ///< see EventHubOptions
  std::chrono::milliseconds scan_interval{3000};        ///< see FolderRegistryOptions
  std::chrono::milliseconds upkeep_interval{2000};      ///< see UpkeepOptions
  std::chrono::milliseconds statistics_interval{5000};  ///< see UpkeepOptions
};

/// The running service: gRPC, metrics, and the threads behind them. See services.h for the parts.
class Server {
 public:
  /// Serves when it returns. kInvalidArgument or kFailedPrecondition, worded for the operator: an
  /// address beyond loopback (there is no TLS or authentication yet), a taken port, a missing
  /// folder, another schema version; kUnavailable when the database cannot be reached.
  static absl::StatusOr<std::unique_ptr<Server>> start(const ServerOptions& options);
  /// Shuts down without grace unless shutdown() was called.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Addresses in use; ports are the real ones where 0 was asked for.
  const ListenAddress& address() const;
  const ListenAddress& metrics_address() const;

  /// Health says NOT_SERVING, watchers end with UNAVAILABLE (and resume elsewhere), no call is
  /// accepted any more; calls under way may finish within `grace`, then they are cancelled.
  void shutdown(std::chrono::milliseconds grace);

 private:
  struct Parts;
  explicit Server(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace qaas
