#pragma once

#include <stop_token>

#include <absl/status/status.h>

#include "workers/engine/job/job_inputs.h"
#include "workers/engine/job/reporter.h"
#include "workers/engine/job/run_job.h"

namespace qaas {

/// Runs the stages (job/stages) that make up the spec's method, in order, over one JobState. A new
/// method composes stages here; it does not copy them. All arguments must outlive the call.
absl::Status run_recipe(const JobInputs& inputs, const RunFolders& folders, const EventSink& sink,
                        std::stop_token stop);

}  // namespace qaas
