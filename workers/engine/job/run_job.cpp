#include "workers/engine/job/run_job.h"

#include <system_error>

#include <absl/strings/str_cat.h>

#include "workers/engine/job/job_inputs.h"
#include "workers/engine/job/recipe.h"

namespace qaas {

absl::Status run_job(const v1::Job& job, const RunFolders& folders, const EventSink& sink,
                     std::stop_token stop) {
  std::error_code error;
  std::filesystem::create_directories(folders.checkpoints, error);
  if (error) {
    const std::string text =
        absl::StrCat("checkpoint folder ", folders.checkpoints.string(), ": ", error.message());
    return error == std::errc::no_space_on_device ? absl::ResourceExhaustedError(text)
                                                  : absl::UnavailableError(text);
  }
  v1::EngineEvent loading;
  loading.mutable_phase_started()->set_phase(v1::PHASE_LOADING);
  sink(loading);
  absl::StatusOr<JobInputs> inputs = load_inputs(job, folders, stop);
  if (!inputs.ok()) return inputs.status();
  return run_recipe(*inputs, folders, sink, stop);
}

}  // namespace qaas
