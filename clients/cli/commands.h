#pragma once

#include <string>

#include "clients/cli/connection.h"
#include "clients/cli/console.h"
#include "clients/cli/errors.h"
#include "qaas/v1/job_spec.pb.h"

/// The commands, one function each. A failure comes back as a Status for describe(); a job that
/// ended badly is no failure of the command, and comes back as an exit code.
namespace qaas::cli {

struct SubmitOptions {
  v1::JobSpec spec;
  std::string request_id;
  bool validate_only = false;
  bool watch = false;
};
/// Submits and prints the job. A server that is unavailable is asked again, which is safe because
/// the request id makes a repeated submit return the first one's job.
absl::StatusOr<ExitCode> submit(Console& console, Connection& connection,
                                const SubmitOptions& options);

absl::StatusOr<ExitCode> forecast(Console& console, Connection& connection,
                                  const v1::JobSpec& spec);
/// At most `limit` jobs, newest first; pages are fetched as needed.
absl::StatusOr<ExitCode> list_jobs(Console& console, Connection& connection, int limit);
absl::StatusOr<ExitCode> get_job(Console& console, Connection& connection, const std::string& job);
absl::StatusOr<ExitCode> cancel_job(Console& console, Connection& connection,
                                    const std::string& job);
/// All models, or one where `model` is not empty.
absl::StatusOr<ExitCode> show_models(Console& console, Connection& connection,
                                     const std::string& model);
absl::StatusOr<ExitCode> list_artifacts(Console& console, Connection& connection,
                                        const std::string& job);

/// Follows a job's events after number `after_event` until it settles, then prints it. When the
/// server goes away the watch resumes after the last event seen, for up to about two minutes
/// without an answer. The exit code tells how the job ended.
absl::StatusOr<ExitCode> watch_job(Console& console, Connection& connection, const std::string& job,
                                   int64_t after_event);

struct DownloadOptions {
  std::string job;
  std::string folder;
};
/// Fetches all files of a finished job into a folder. Bytes go to NAME.partial, which a later run
/// continues; a file gets its name only when its size and SHA-256 are right. Files that are there
/// already with the right digest are left alone, others of the same name are never overwritten.
absl::StatusOr<ExitCode> download(Console& console, Connection& connection,
                                  const DownloadOptions& options);

}  // namespace qaas::cli
