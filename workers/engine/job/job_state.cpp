#include "workers/engine/job/job_state.h"

#include <utility>

#include "workers/engine/job/artifact.h"
#include "workers/engine/job/work_units.h"

namespace qaas {

JobState::JobState(const JobInputs& inputs, const RunFolders& folders, const EventSink& sink,
                   std::stop_token stop, torch::ScalarType compute,
                   BlockCheckpoints::Identity identity, FinishedBlocks::Keep keep)
    : inputs(inputs),
      folders(folders),
      stop(std::move(stop)),
      compute(compute),
      reporter(sink, total_units(inputs)),
      checkpoints(folders.checkpoints, std::move(identity)),
      blocks(checkpoints, reporter, inputs.model.config().num_hidden_layers, keep),
      spec(inputs.job.spec()),
      source(&inputs.model) {
  *report.mutable_job() = inputs.job;
}

absl::StatusOr<DecoderBlock> dense_block(const ModelFolder& folder, int64_t index) {
  if (const absl::Status status = folder.check_unchanged(); !status.ok()) return status;
  return load_block(folder.config(), source_tensors(folder), index);
}

absl::StatusOr<DecoderBlock> packed_block(const JobState& state, int64_t index,
                                          const QuantizedBlock& quantized) {
  if (const absl::Status status = state.source->check_unchanged(); !status.ok()) return status;
  return make_packed_block(state.config(), source_tensors(*state.source), index, quantized);
}

}  // namespace qaas
