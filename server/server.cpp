#include "server/server.h"

#include <system_error>
#include <utility>

#include <absl/strings/str_cat.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <prometheus/registry.h>

#include "server/artifact_service.h"
#include "server/errors.h"
#include "server/model_service.h"
#include "server/quantization_service.h"
#include "server/rpc.h"
#include "server/services.h"
#include "server/upkeep.h"
#include "storage/database/folder_store.h"
#include "storage/database/listener.h"
#include "telemetry/build_info.h"
#include "telemetry/logging.h"
#include "telemetry/metrics_exposer.h"

namespace qaas {
namespace {

constexpr int kLargestMessage = 4 << 20;  // what clients accept unless told otherwise
// Connections beside those of calls and watchers: upkeep, folder registry, notifications.
constexpr int kOtherConnections = 3;

// Names under which health can be asked; "" stands for the server as a whole.
constexpr const char* kHealthNames[] = {"", "qaas.v1.QuantizationService", "qaas.v1.ModelService",
                                        "qaas.v1.ArtifactService"};

// Answers calls to methods that do not exist, and counts them as one.
class UnknownMethods final : public grpc::CallbackGenericService {
 public:
  explicit UnknownMethods(ServerMetrics& metrics) : metrics_(metrics) {}

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* /*call*/) override {
    class Refusal final : public grpc::ServerGenericBidiReactor {
     public:
      explicit Refusal(ServerMetrics& metrics) {
        const grpc::Status status =
            to_grpc_status(absl::UnimplementedError("the server has no such method"));
        RpcRecord(metrics, kOtherMethod).finish(status.error_code());
        Finish(status);
      }
      void OnDone() override { delete this; }
    };
    return new Refusal(metrics_);
  }

 private:
  ServerMetrics& metrics_;
};

absl::Status check_folder(const char* flag, const std::filesystem::path& folder) {
  std::error_code error;
  if (std::filesystem::is_directory(folder, error)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      flag, " '", folder.string(), "': ", error ? error.message() : std::string("not a folder"),
      "; expected a folder that exists"));
}

Listener::Callbacks notices_for(EventHub& events) {
  return {.on_notification = [&events](const std::string&,
                                       const std::string& job_id) { events.notify(job_id); },
          .on_connected = [&events] { events.notify_all(); },
          .on_disconnected =
              [](const absl::Status& why, std::chrono::milliseconds) {
                static LogLimiter limiter(std::chrono::seconds(30));
                limiter.log(LogLevel::kWarning,
                            absl::StrCat("watchers poll: no notifications: ", why.ToString()));
              }};
}

absl::Status check(const ServerOptions& options) {
  for (const absl::Status& status :
       {require_loopback("--listen", options.listen),
        require_loopback("--metrics", options.metrics), check_folder("--models", options.models),
        check_folder("--datasets", options.datasets)}) {
    if (!status.ok()) return status;
  }
  // gRPC would log a page about a taken port before saying no.
  return options.listen.port == 0 ? absl::OkStatus() : probe_listen_address(options.listen);
}

}  // namespace

// In order of construction: each part uses only those above it.
struct Server::Parts {
  Parts(const ServerOptions& options, std::unique_ptr<ArtifactStore> store)
      : registry(std::make_shared<prometheus::Registry>()),
        metrics(registry),
        database({.dsn = options.dsn,
                  .pool_size = options.sql_threads + options.watch_threads + kOtherConnections}),
        jobs(database, options.jobs),
        folder_store(database),
        artifacts(std::move(store)),
        folders({.models = options.models,
                 .datasets = options.datasets,
                 .scan_interval = options.scan_interval},
                folder_store, metrics),
        sql(options.sql_threads, options.sql_queue,
            metrics.pool("sql", options.sql_threads, options.sql_queue)),
        disk(options.disk_threads, options.max_downloads,
             metrics.pool("disk", options.disk_threads, options.max_downloads)),
        downloads(options.max_downloads, metrics.downloads()),
        events({.threads = options.watch_threads,
                .max_subscribers = options.max_watchers,
                .poll_interval = options.watch_poll_interval},
               metrics.watchers()),
        context{.jobs = jobs,
                .folders = folders,
                .artifacts = *artifacts,
                .events = events,
                .sql = sql,
                .disk = disk,
                .downloads = downloads,
                .metrics = metrics},
        quantization(context),
        models(context),
        artifact_service(context),
        unknown(metrics),
        listener(database, {kEventChannel}, notices_for(events)) {}

  absl::Status listen(const ServerOptions& options);
  void set_serving(bool serving) const;

  ListenAddress address;
  std::shared_ptr<prometheus::Registry> registry;
  ServerMetrics metrics;
  Database database;
  JobStore jobs;
  FolderStore folder_store;
  std::unique_ptr<ArtifactStore> artifacts;
  FolderRegistry folders;
  BoundedPool sql;
  BoundedPool disk;
  DownloadSlots downloads;
  EventHub events;
  ServiceContext context;
  QuantizationService quantization;
  ModelService models;
  ArtifactService artifact_service;
  UnknownMethods unknown;
  Listener listener;
  std::unique_ptr<MetricsExposer> exposer;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<Upkeep> upkeep;
};

absl::Status Server::Parts::listen(const ServerOptions& options) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  // Two servers on one port would share its connections in silence.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_streams_per_connection);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 15000);
  builder.SetMaxReceiveMessageSize(options.max_request_bytes);
  builder.SetMaxSendMessageSize(kLargestMessage);
  builder.AddListeningPort(options.listen.text(), grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&quantization);
  builder.RegisterService(&models);
  builder.RegisterService(&artifact_service);
  builder.RegisterCallbackGenericService(&unknown);
  server = builder.BuildAndStart();
  if (!server || port == 0) {
    const absl::Status cause = probe_listen_address(options.listen);
    return cause.ok()
               ? absl::UnavailableError(absl::StrCat("cannot listen on ", options.listen.text()))
               : cause;
  }
  address = options.listen;
  address.port = port;
  return absl::OkStatus();
}

void Server::Parts::set_serving(bool serving) const {
  for (const char* name : kHealthNames) {
    server->GetHealthCheckService()->SetServingStatus(name, serving);
  }
}

absl::StatusOr<std::unique_ptr<Server>> Server::start(const ServerOptions& options) {
  absl::Status status = check(options);
  if (!status.ok()) return status;
  {
    // Before anything else runs: no part may see another schema.
    Database database({.dsn = options.dsn, .pool_size = 1});
    status = check_schema(database);
    if (!status.ok()) return status;
  }
  absl::StatusOr<std::unique_ptr<ArtifactStore>> artifacts =
      open_local_artifact_store(options.artifacts);
  if (!artifacts.ok()) return artifacts.status();

  auto parts = std::make_unique<Parts>(options, *std::move(artifacts));
  add_build_info(*parts->registry, "qaas-server");
  absl::StatusOr<std::unique_ptr<MetricsExposer>> exposer =
      MetricsExposer::start(options.metrics, parts->registry);
  if (!exposer.ok()) return exposer.status();
  parts->exposer = *std::move(exposer);
  status = parts->listen(options);
  if (!status.ok()) return status;
  parts->set_serving(true);
  parts->upkeep = std::make_unique<Upkeep>(
      UpkeepOptions{.interval = options.upkeep_interval,
                    .statistics_interval = options.statistics_interval,
                    .lease = options.jobs.lease},
      parts->database, parts->jobs, parts->metrics,
      [parts = parts.get()](bool serving) { parts->set_serving(serving); });
  return std::unique_ptr<Server>(new Server(std::move(parts)));
}

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Server::~Server() { shutdown(std::chrono::milliseconds(0)); }

const ListenAddress& Server::address() const { return parts_->address; }

const ListenAddress& Server::metrics_address() const { return parts_->exposer->address(); }

void Server::shutdown(std::chrono::milliseconds grace) {
  if (!parts_->server) return;
  parts_->server->GetHealthCheckService()->Shutdown();  // NOT_SERVING from now on
  parts_->upkeep.reset();
  parts_->events.stop();
  parts_->server->Shutdown(std::chrono::system_clock::now() + grace);
  parts_->server.reset();
}

}  // namespace qaas
