#pragma once

#include <memory>
#include <string>

#include <CLI/App.hpp>
#include <absl/status/statusor.h>

#include "server/server.h"
#include "telemetry/logging.h"

/// The command line of qaas-server, with the help text of every setting.
namespace qaas {

/// Flag values as text and numbers, before they are checked together.
struct DatabaseFlags {
  std::string dsn;
  std::string file;
};

struct ServeFlags {
  DatabaseFlags database;
  ServerOptions options;
  std::string listen = "127.0.0.1:50051";
  std::string metrics = "127.0.0.1:9464";
  std::string log_format = "auto";
  std::string log_level = "info";
  double lease_seconds = 15;
  double first_backoff_seconds = 5;
  double longest_backoff_seconds = 600;
  double watch_poll_seconds = 3;
  double scan_seconds = 3;
  double upkeep_seconds = 2;
  double statistics_seconds = 5;
  double shutdown_seconds = 10;
};

/// Adds the flags to a subcommand; `flags` is filled when the command line is parsed and must
/// outlive `app`.
void add_database_flags(CLI::App& app, DatabaseFlags& flags);
void add_serve_flags(CLI::App& app, ServeFlags& flags);

/// The connection string: as given, or the text of the file without its line end.
/// kInvalidArgument when neither or both are given, or the file cannot be read.
absl::StatusOr<std::string> database_dsn(const DatabaseFlags& flags);

/// Flags checked and turned into options.
absl::StatusOr<ServerOptions> server_options(const ServeFlags& flags);
absl::StatusOr<LoggingOptions> logging_options(const ServeFlags& flags);

}  // namespace qaas
