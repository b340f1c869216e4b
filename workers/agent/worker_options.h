#pragma once

#include <filesystem>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "storage/database/job_store.h"
#include "telemetry/listen_address.h"
#include "telemetry/logging.h"
#include "workers/agent/agent.h"
#include "workers/agent/housekeeping.h"

namespace qaas {

/// Everything qaas-worker is told on its command line, checked.
struct WorkerOptions {
  std::string dsn;  ///< never logged
  std::filesystem::path artifacts;
  std::filesystem::path scratch;
  ListenAddress metrics;
  LoggingOptions logging;
  JobStoreOptions jobs;
  HousekeepingOptions housekeeping;
  AgentOptions agent;
};

/// The result of reading a command line: options, or a text to print and an exit code.
struct WorkerCommandLine {
  bool run = false;
  WorkerOptions options;  ///< if run
  std::string text;       ///< if not run: help, version or what is wrong
  int exit_code = 0;      ///< if not run: 0 after --help, 2 after a mistake
};

/// Reads the command line of qaas-worker. Reads the file of --database-file; touches nothing else.
WorkerCommandLine parse_worker_options(int argc, const char* const* argv);

/// OK if the folders of models and datasets exist and the engine is an executable file; else
/// kFailedPrecondition that names the flag.
absl::Status check_worker_paths(const WorkerOptions& options);

}  // namespace qaas
