#include "server/server_flags.h"

#include <chrono>
#include <cmath>
#include <fstream>
#include <iterator>

#include <CLI/CLI.hpp>
#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>

namespace qaas {
namespace {

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(std::llround(seconds * 1000));
}

}  // namespace

void add_database_flags(CLI::App& app, DatabaseFlags& flags) {
  app.add_option("--database", flags.dsn,
                 "PostgreSQL connection string, 'host=/run/qaas dbname=qaas' or postgresql://...; "
                 "other programs can see it: put a password into --database-file")
      ->envname("QAAS_DATABASE");
  app.add_option("--database-file", flags.file, "File that holds the connection string");
}

void add_serve_flags(CLI::App& app, ServeFlags& flags) {
  ServerOptions& options = flags.options;
  app.option_defaults()->always_capture_default();
  app.add_option("--listen", flags.listen,
                 "gRPC address, host:port; loopback only; port 0 lets the system choose");
  app.add_option("--metrics", flags.metrics, "Prometheus address, host:port; loopback only");
  app.option_defaults()->always_capture_default(false);
  add_database_flags(app, flags.database);
  app.add_option("--models", options.models, "Folder whose subfolders are the models")->required();
  app.add_option("--datasets", options.datasets, "Folder whose subfolders are the datasets")
      ->required();
  app.add_option("--artifacts", options.artifacts,
                 "Artifact store, the same folder as the workers'; made if missing")
      ->required();
  app.option_defaults()->always_capture_default();
  app.add_option("--log-format", flags.log_format,
                 "auto (text on a terminal, else json), text or json");
  app.add_option("--log-level", flags.log_level, "debug, info, warning or error");
  app.add_option("--shutdown-seconds", flags.shutdown_seconds,
                 "Time that calls under way have to finish after SIGTERM; a second signal ends the "
                 "program at once")
      ->check(CLI::Range(0.0, 3600.0));

  const char* const limits = "Limits";
  app.add_option("--sql-threads", options.sql_threads,
                 "Calls that use the database at once; one connection each")
      ->check(CLI::Range(1, 256))
      ->group(limits);
  app.add_option("--sql-queue", options.sql_queue,
                 "Calls that may wait for one of them; more get RESOURCE_EXHAUSTED")
      ->check(CLI::Range(1, 100000))
      ->group(limits);
  app.add_option("--watch-threads", options.watch_threads,
                 "Threads that read events for all watchers; one connection each")
      ->check(CLI::Range(1, 64))
      ->group(limits);
  app.add_option("--max-watchers", options.max_watchers, "WatchJob streams at once")
      ->check(CLI::Range(1, 1000000))
      ->group(limits);
  app.add_option("--disk-threads", options.disk_threads, "Reads of artifact files at once")
      ->check(CLI::Range(1, 256))
      ->group(limits);
  app.add_option("--max-downloads", options.max_downloads,
                 "DownloadArtifact streams at once; each holds a chunk of 1 MiB")
      ->check(CLI::Range(1, 100000))
      ->group(limits);
  app.add_option("--max-request-bytes", options.max_request_bytes,
                 "Larger requests are refused unread")
      ->check(CLI::Range(1024, 64 << 20))
      ->group(limits);
  app.add_option("--max-streams-per-connection", options.max_streams_per_connection,
                 "Calls at once over one connection")
      ->check(CLI::Range(1, 100000))
      ->group(limits);

  const char* const jobs = "Jobs (give every server and worker the same)";
  app.add_option("--lease-seconds", flags.lease_seconds,
                 "How long a silent worker keeps its job before a server or worker rescues it")
      ->check(CLI::Range(1.0, 3600.0))
      ->group(jobs);
  app.add_option("--max-failures", options.jobs.max_failures,
                 "Failed attempts, rescues included, before a job fails for good")
      ->check(CLI::Range(1, 100))
      ->group(jobs);
  app.add_option("--first-backoff-seconds", flags.first_backoff_seconds,
                 "Wait before the second attempt; doubles with each further one")
      ->check(CLI::Range(0.0, 3600.0))
      ->group(jobs);
  app.add_option("--max-backoff-seconds", flags.longest_backoff_seconds, "Longest such wait")
      ->check(CLI::Range(0.0, 86400.0))
      ->group(jobs);

  const char* const intervals = "Intervals";
  app.add_option("--watch-poll-seconds", flags.watch_poll_seconds,
                 "How often watchers look for events that no notification told of")
      ->check(CLI::Range(0.05, 600.0))
      ->group(intervals);
  app.add_option("--scan-seconds", flags.scan_seconds,
                 "How often the model and dataset folders are looked at")
      ->check(CLI::Range(0.05, 3600.0))
      ->group(intervals);
  app.add_option("--upkeep-seconds", flags.upkeep_seconds,
                 "How often the database is checked, for health and rescue")
      ->check(CLI::Range(0.05, 60.0))
      ->group(intervals);
  app.add_option("--statistics-seconds", flags.statistics_seconds,
                 "How often the job figures for metrics are read")
      ->check(CLI::Range(0.05, 3600.0))
      ->group(intervals);
}

absl::StatusOr<std::string> database_dsn(const DatabaseFlags& flags) {
  if (flags.dsn.empty() == flags.file.empty()) {
    return absl::InvalidArgumentError("expected one of --database and --database-file");
  }
  if (flags.file.empty()) return flags.dsn;
  std::ifstream file(flags.file);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const std::string dsn(absl::StripAsciiWhitespace(text));
  if (dsn.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--database-file '", flags.file, "': cannot be read, or is empty"));
  }
  return dsn;
}

absl::StatusOr<ServerOptions> server_options(const ServeFlags& flags) {
  ServerOptions options = flags.options;
  absl::StatusOr<std::string> dsn = database_dsn(flags.database);
  if (!dsn.ok()) return dsn.status();
  options.dsn = *std::move(dsn);
  absl::StatusOr<ListenAddress> listen = parse_listen_address(flags.listen);
  if (!listen.ok()) return listen.status();
  options.listen = *std::move(listen);
  absl::StatusOr<ListenAddress> metrics = parse_listen_address(flags.metrics);
  if (!metrics.ok()) return metrics.status();
  options.metrics = *std::move(metrics);
  options.jobs.lease = milliseconds(flags.lease_seconds);
  options.jobs.first_backoff = milliseconds(flags.first_backoff_seconds);
  options.jobs.max_backoff = milliseconds(flags.longest_backoff_seconds);
  options.watch_poll_interval = milliseconds(flags.watch_poll_seconds);
  options.scan_interval = milliseconds(flags.scan_seconds);
  options.upkeep_interval = milliseconds(flags.upkeep_seconds);
  options.statistics_interval = milliseconds(flags.statistics_seconds);
  return options;
}

absl::StatusOr<LoggingOptions> logging_options(const ServeFlags& flags) {
  LoggingOptions options{.program = "qaas-server"};
  const absl::Status format = parse_log_format(flags.log_format, options.format);
  if (!format.ok()) return format;
  const absl::Status level = parse_log_level(flags.log_level, options.level);
  if (!level.ok()) return level;
  return options;
}

}  // namespace qaas
