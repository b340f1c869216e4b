#pragma once

#include <exception>

#include <absl/status/status.h>

#include "qaas/v1/event.pb.h"

namespace qaas {

/// Exit statuses of qaas-engine, as --help documents them.
enum ExitCode : int {
  kExitOk = 0,
  kExitInternal = 1,  ///< a defect, or training that diverged
  kExitCaller = 2,    ///< the job, its files or the command line cannot work
  kExitResource = 3,  ///< out of memory or disk
  kExitStopped = 75,  ///< SIGTERM or SIGINT; everything finished is in the checkpoint folder
};

/// How a run that ended with `status` is reported, and the process's exit status.
v1::Failure failure_of(const absl::Status& status);
ExitCode exit_code_of(const absl::Status& status);

/// A Status for an exception out of a job: kResourceExhausted for out of memory (host or device),
/// else kInternal with its first line.
absl::Status status_of(const std::exception& error);

}  // namespace qaas
