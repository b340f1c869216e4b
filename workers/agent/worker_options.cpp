#include "workers/agent/worker_options.h"

#include <fstream>
#include <iterator>
#include <sstream>
#include <system_error>
#include <thread>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>

#include "telemetry/build_info.h"

namespace qaas {
namespace {

namespace fs = std::filesystem;

constexpr int kUsageError = 2;

/// What the flags say, before it is checked. The defaults here are the program's.
struct Flags {
  std::string database;
  std::string database_file;
  std::string models;
  std::string datasets;
  std::string artifacts;
  std::string scratch;
  std::string engine;
  std::string metrics = "127.0.0.1:9465";
  std::string name;
  std::string log_format = "auto";
  std::string log_level = "info";
  int threads = 0;
  double lease_seconds = 15;
  double poll_seconds = 5;
  double cancel_grace_seconds = 10;
  double stop_grace_seconds = 60;
  double handover_seconds = 60;
  double first_backoff_seconds = 5;
  double max_backoff_seconds = 600;
  double rest_seconds = 2;
  double max_rest_seconds = 60;
  double collect_minutes = 60;
  int max_failures = 3;
  size_t event_queue = 10000;
  size_t event_queue_mib = 16;
  size_t engine_line_bytes = 2000;
  int engine_lines_per_second = 50;
};

std::chrono::milliseconds milliseconds_of(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

fs::path engine_beside_this_program() {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::path("qaas-engine") : self.parent_path() / "qaas-engine";
}

std::string name_of_this_worker() {
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  return absl::StrCat(host, "-", ::getpid());
}

int threads_of_this_machine() {
  const unsigned cores = std::thread::hardware_concurrency();
  return cores == 0 ? 1 : static_cast<int>(cores);
}

void add_flags(CLI::App& app, Flags& flags) {
  const CLI::Range seconds(0.001, 86400.0);
  auto* database = app.add_option("--database", flags.database,
                                  "PostgreSQL connection string or URI of the queue");
  app.add_option("--database-file", flags.database_file,
                 "File that holds the connection string: keeps a password out of the process list")
      ->excludes(database);
  app.add_option("--models", flags.models, "Folder whose subfolders are the models")->required();
  app.add_option("--datasets", flags.datasets, "Folder whose entries are the datasets")->required();
  app.add_option("--artifacts", flags.artifacts,
                 "Artifact store: a folder that server and all workers share; made if missing")
      ->required();
  app.add_option("--scratch", flags.scratch,
                 "Folder for files of running jobs; made if missing; workers may share it")
      ->required();
  app.add_option("--engine", flags.engine, "The engine program [qaas-engine beside this program]");
  app.add_option("--metrics", flags.metrics,
                 "Address of the Prometheus page /metrics; loopback only")
      ->capture_default_str();
  app.add_option("--threads", flags.threads, "Compute threads of the engine [all cores]")
      ->check(CLI::Range(1, 4096));
  app.add_option("--name", flags.name, "Name of this worker in job events [host name and process]");
  app.add_option("--log-format", flags.log_format, "auto, text or json")->capture_default_str();
  app.add_option("--log-level", flags.log_level, "debug, info, warning or error")
      ->capture_default_str();

  const std::string queue = "Jobs (give every server and worker the same)";
  app.add_option("--lease-seconds", flags.lease_seconds,
                 "A job whose worker is silent for this long is given to another")
      ->check(seconds)
      ->group(queue)
      ->capture_default_str();
  app.add_option("--max-failures", flags.max_failures,
                 "Failed attempts before a job fails for good")
      ->check(CLI::Range(1, 1000))
      ->group(queue)
      ->capture_default_str();
  app.add_option("--first-backoff-seconds", flags.first_backoff_seconds,
                 "Wait after the first failed attempt; doubles with each one")
      ->check(seconds)
      ->group(queue)
      ->capture_default_str();
  app.add_option("--max-backoff-seconds", flags.max_backoff_seconds, "Longest such wait")
      ->check(seconds)
      ->group(queue)
      ->capture_default_str();

  const std::string timing = "Timing";
  app.add_option("--poll-seconds", flags.poll_seconds,
                 "Longest time between two looks at the queue when nothing wakes the worker")
      ->check(seconds)
      ->group(timing)
      ->capture_default_str();
  app.add_option("--cancel-grace-seconds", flags.cancel_grace_seconds,
                 "Time an engine has to stop when its job is cancelled, before it is killed")
      ->check(seconds)
      ->group(timing)
      ->capture_default_str();
  app.add_option("--stop-grace-seconds", flags.stop_grace_seconds,
                 "Time an engine has to write a checkpoint when the worker stops")
      ->check(seconds)
      ->group(timing)
      ->capture_default_str();
  app.add_option("--handover-seconds", flags.handover_seconds,
                 "Time after that for storing the checkpoint and giving the job back")
      ->check(seconds)
      ->group(timing)
      ->capture_default_str();
  app.add_option("--rest-seconds", flags.rest_seconds,
                 "Rest before the next claim after two failures in a row that may be this "
                 "machine's; doubles with each one")
      ->check(seconds)
      ->group(timing)
      ->capture_default_str();
  app.add_option("--max-rest-seconds", flags.max_rest_seconds, "Longest such rest")
      ->check(seconds)
      ->group(timing)
      ->capture_default_str();
  app.add_option("--collect-minutes", flags.collect_minutes,
                 "Time between two removals of stored files that no job names any more")
      ->check(CLI::Range(0.001, 100000.0))
      ->group(timing)
      ->capture_default_str();

  const std::string bounds = "Bounds";
  app.add_option("--event-queue", flags.event_queue,
                 "Events of a job held while the database is away; more are dropped and counted")
      ->check(CLI::Range(1, 10000000))
      ->group(bounds)
      ->capture_default_str();
  app.add_option("--event-queue-mib", flags.event_queue_mib, "The same in MiB of memory")
      ->check(CLI::Range(1, 65536))
      ->group(bounds)
      ->capture_default_str();
  app.add_option("--engine-line-bytes", flags.engine_line_bytes,
                 "Longer lines of the engine's log are cut")
      ->check(CLI::Range(80, 4000))
      ->group(bounds)
      ->capture_default_str();
  app.add_option("--engine-lines-per-second", flags.engine_lines_per_second,
                 "More lines of the engine's log are counted, not written")
      ->check(CLI::Range(1, 100000))
      ->group(bounds)
      ->capture_default_str();
}

absl::StatusOr<std::string> connection_string(const Flags& flags) {
  if (flags.database_file.empty()) {
    if (flags.database.empty()) {
      return absl::InvalidArgumentError("--database or --database-file is required");
    }
    return flags.database;
  }
  std::ifstream in(flags.database_file);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const std::string dsn(absl::StripAsciiWhitespace(text));
  if (!in || dsn.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("--database-file ", flags.database_file,
                                                   ": cannot be read, or holds nothing"));
  }
  return dsn;
}

absl::StatusOr<WorkerOptions> options_of(const Flags& flags) {
  WorkerOptions options;
  auto dsn = connection_string(flags);
  if (!dsn.ok()) {
    return dsn.status();
  }
  options.dsn = std::move(*dsn);
  auto metrics = parse_listen_address(flags.metrics);
  if (!metrics.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics: ", absl::string_view(metrics.status().message())));
  }
  const absl::Status loopback = require_loopback("--metrics", *metrics);
  if (!loopback.ok()) {
    return loopback;
  }
  options.metrics = *metrics;
  options.logging.program = "qaas-worker";
  for (const absl::Status& status : {parse_log_format(flags.log_format, options.logging.format),
                                     parse_log_level(flags.log_level, options.logging.level)}) {
    if (!status.ok()) {
      return status;
    }
  }
  options.artifacts = flags.artifacts;
  options.scratch = flags.scratch;
  options.jobs = {.lease = milliseconds_of(flags.lease_seconds),
                  .max_failures = flags.max_failures,
                  .first_backoff = milliseconds_of(flags.first_backoff_seconds),
                  .max_backoff = milliseconds_of(flags.max_backoff_seconds)};
  options.housekeeping = {.lease = options.jobs.lease,
                          .collect_interval = milliseconds_of(60 * flags.collect_minutes)};

  AgentOptions& agent = options.agent;
  agent.name = flags.name.empty() ? name_of_this_worker() : flags.name;
  agent.poll = milliseconds_of(flags.poll_seconds);
  agent.handover = milliseconds_of(flags.handover_seconds);
  agent.first_rest = milliseconds_of(flags.rest_seconds);
  agent.longest_rest = milliseconds_of(flags.max_rest_seconds);
  // The engine runs in another folder: its arguments must not be relative to this one.
  agent.attempt.roots = {
      .models = fs::absolute(flags.models),
      .datasets = fs::absolute(flags.datasets),
      .engine = flags.engine.empty() ? engine_beside_this_program() : fs::absolute(flags.engine),
      .threads = flags.threads > 0 ? flags.threads : threads_of_this_machine()};
  options.scratch = fs::absolute(flags.scratch);
  agent.attempt.lease = options.jobs.lease;
  agent.attempt.engine = {.cancel_grace = milliseconds_of(flags.cancel_grace_seconds),
                          .stop_grace = milliseconds_of(flags.stop_grace_seconds),
                          .log = {.max_line_bytes = flags.engine_line_bytes,
                                  .max_lines_per_second = flags.engine_lines_per_second}};
  agent.attempt.events = {.max_queued_events = flags.event_queue,
                          .max_queued_bytes = flags.event_queue_mib << 20};
  return options;
}

}  // namespace

WorkerCommandLine parse_worker_options(int argc, const char* const* argv) {
  CLI::App app(
      "qaas-worker: claims quantization jobs and runs them, one at a time.\n"
      "SIGTERM or SIGINT: the running job is checkpointed and given back, within stop grace plus\n"
      "handover; a second one ends the worker at once. Exit code: 0 after a stop, 1 if it cannot\n"
      "start or stop in order, 2 for a mistake on the command line.",
      "qaas-worker");
  app.set_version_flag("--version", absl::StrCat("qaas-worker ", build_version()));
  Flags flags;
  add_flags(app, flags);
  WorkerCommandLine result;
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {  // CLI11 reports help and mistakes alike by throwing
    std::ostringstream out;
    std::ostringstream errors;
    const bool asked_for = app.exit(error, out, errors) == 0;
    result.text = out.str() + errors.str();
    result.exit_code = asked_for ? 0 : kUsageError;
    return result;
  }
  auto options = options_of(flags);
  if (!options.ok()) {
    result.text = absl::StrCat(absl::string_view(options.status().message()), "\n");
    result.exit_code = kUsageError;
    return result;
  }
  result.run = true;
  result.options = std::move(*options);
  return result;
}

absl::Status check_worker_paths(const WorkerOptions& options) {
  const JobRoots& roots = options.agent.attempt.roots;
  std::error_code error;
  for (const auto& [flag, folder] :
       {std::pair("--models", roots.models), std::pair("--datasets", roots.datasets)}) {
    if (!fs::is_directory(folder, error)) {
      return absl::FailedPreconditionError(
          absl::StrCat(flag, " ", folder.string(), ": no such folder"));
    }
  }
  if (!fs::is_regular_file(roots.engine, error) || ::access(roots.engine.c_str(), X_OK) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("--engine ", roots.engine.string(), ": no executable file"));
  }
  return absl::OkStatus();
}

}  // namespace qaas
