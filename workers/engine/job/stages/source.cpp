#include "workers/engine/job/artifact.h"
#include "workers/engine/job/stages/stages.h"

namespace qaas::stages {

absl::Status prepare_source(JobState& state) {
  state.original_ends = load_ends(state.inputs.model.config(), source_tensors(state.inputs.model));
  state.ends = state.original_ends;
  return absl::OkStatus();
}

}  // namespace qaas::stages
