// qaas-server: wires flags, signals and the server together.
#include <csignal>
#include <cstdio>
#include <exception>
#include <iostream>

#include <CLI/CLI.hpp>
#include <absl/strings/str_cat.h>

#include "server/server.h"
#include "server/server_flags.h"
#include "storage/database/database.h"
#include "telemetry/build_info.h"
#include "telemetry/logging.h"

namespace {

constexpr char kAbout[] =
    "qaas-server takes quantization jobs over gRPC, queues them in PostgreSQL, shows their "
    "progress and hands out their artifacts. Workers (qaas-worker) do the work.\n"
    "First run 'migrate' on the database, then 'serve'.";

/// Exit status of a command line that makes no sense, as of the other programs.
constexpr int kWrongFlags = 2;

int fail(const absl::Status& status) {
  std::cerr << "qaas-server: " << status.message() << "\n";
  return 1;
}

// SIGINT and SIGTERM, to be waited for instead of handled.
sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

int serve(const qaas::ServeFlags& flags) {
  const absl::StatusOr<qaas::LoggingOptions> logging = qaas::logging_options(flags);
  if (!logging.ok()) return fail(logging.status());
  const absl::StatusOr<qaas::ServerOptions> options = qaas::server_options(flags);
  if (!options.ok()) return fail(options.status());

  // Threads inherit the mask: only the wait below ever sees these signals.
  const sigset_t signals = stop_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  qaas::start_logging(*logging);

  const auto server = qaas::Server::start(*options);
  if (!server.ok()) {
    qaas::stop_logging();
    return fail(server.status());
  }
  qaas::log_info(absl::StrCat("qaas-server ", qaas::build_version(), " serves gRPC on ",
                              (*server)->address().text(), " and metrics on http://",
                              (*server)->metrics_address().text(), "/metrics"));
  int signal = 0;
  sigwait(&signals, &signal);
  qaas::log_info("shutting down; a second signal ends the program at once");
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  (*server)->shutdown(
      std::chrono::milliseconds(static_cast<int64_t>(flags.shutdown_seconds * 1000)));
  qaas::log_info("stopped");
  qaas::stop_logging();
  return 0;
}

int migrate(const qaas::DatabaseFlags& flags) {
  const absl::StatusOr<std::string> dsn = qaas::database_dsn(flags);
  if (!dsn.ok()) return fail(dsn.status());
  qaas::Database database({.dsn = *dsn, .pool_size = 1});
  const absl::Status status = qaas::migrate(database);
  if (!status.ok()) return fail(status);
  std::cout << "database is at schema version " << qaas::schema_version() << "\n";
  return 0;
}

int run(int argc, char** argv) {
  CLI::App app{kAbout, "qaas-server"};
  app.set_version_flag("--version", absl::StrCat("qaas-server ", qaas::build_version()));
  app.require_subcommand(1);
  qaas::ServeFlags serve_flags;
  CLI::App* serve_command = app.add_subcommand("serve", "Serve until SIGTERM or SIGINT");
  qaas::add_serve_flags(*serve_command, serve_flags);
  qaas::DatabaseFlags migrate_flags;
  CLI::App* migrate_command = app.add_subcommand(
      "migrate", "Bring the database to this program's schema version; safe to repeat");
  qaas::add_database_flags(*migrate_command, migrate_flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {  // --help and --version too
    return app.exit(error) == 0 ? 0 : kWrongFlags;
  }
  return serve_command->parsed() ? serve(serve_flags) : migrate(migrate_flags);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "qaas-server: %s\n", error.what());
    return 1;
  }
}
