#include "clients/cli/commands.h"
#include "clients/cli/job_text.h"
#include "clients/cli/queries.h"

namespace qaas::cli {

absl::StatusOr<ExitCode> submit(Console& console, Connection& connection,
                                const SubmitOptions& options) {
  v1::SubmitJobRequest request;
  *request.mutable_spec() = options.spec;
  request.set_request_id(options.request_id);
  request.set_validate_only(options.validate_only);
  const absl::StatusOr<v1::Job> job = submit_until_answered(connection, request);
  if (!job.ok()) return job.status();

  const bool watch = options.watch && !options.validate_only;
  if (console.json) {
    // With --watch every message is one line, so that a script reads lines throughout.
    watch ? print_json_line(console, *job) : print_json(console, *job);
  } else {
    console.out << job_text(*job);
  }
  if (!watch) return ExitCode::kOk;
  if (!console.json) console.out << "\n";
  return watch_job(console, connection, job->name(), 0);
}

}  // namespace qaas::cli
