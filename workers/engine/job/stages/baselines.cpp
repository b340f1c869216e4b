#include <cmath>

#include <absl/strings/str_cat.h>

#include "workers/engine/job/artifact.h"
#include "workers/engine/job/scoring.h"
#include "workers/engine/job/stage_options.h"
#include "workers/engine/job/stages/stages.h"

namespace qaas::stages {

absl::Status score_baselines(JobState& state) {
  state.reporter.start_phase(v1::PHASE_BASELINE);
  const JobInputs& inputs = state.inputs;
  const ModelConfig& config = inputs.model.config();
  absl::StatusOr<ScoredModel> original =
      score(state, config, state.original_ends,
            [&](int64_t index) { return dense_block(inputs.model, index); });
  if (!original.ok()) return original.status();
  if (!std::isfinite(original->score.loss)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model '", state.spec.model(), "': its loss on the evaluation text is ",
        original->score.loss,
        ", expected a number; the embedding, the final norm or the head may hold NaN"));
  }
  state.original = *std::move(original);

  const absl::StatusOr<ScoredModel> nearest =
      score(state, config, state.original_ends, [&](int64_t index) -> absl::StatusOr<DecoderBlock> {
        absl::StatusOr<DecoderBlock> block = dense_block(inputs.model, index);
        if (!block.ok()) return block.status();
        prepare_block(*block, grids_of_block(inputs.job.spec(), index));
        return make_packed_block(config, source_tensors(inputs.model), index,
                                 convert_block(*block));
      });
  if (!nearest.ok()) return nearest.status();

  v1::Evaluation& evaluation = *state.report.mutable_evaluation();
  evaluation.set_dataset(state.spec.evaluation().dataset());
  evaluation.set_windows(inputs.evaluation.size(0));
  evaluation.set_sequence_length(static_cast<int32_t>(inputs.evaluation.size(1)));
  evaluation.set_scored_tokens(inputs.evaluation.size(0) * (inputs.evaluation.size(1) - 1));
  evaluation.set_same_source(inputs.same_source);
  evaluation.set_original_bytes(inputs.model.weight_bytes());
  *evaluation.mutable_original() = to_proto(state.original->score);
  *evaluation.mutable_round_to_nearest() = to_proto(nearest->score);
  return absl::OkStatus();
}

absl::Status score_stage(JobState& state, v1::StageScore stage) {
  const absl::StatusOr<ScoredModel> scored =
      score(state, state.config(), state.ends, [&](int64_t index) -> absl::StatusOr<DecoderBlock> {
        absl::StatusOr<QuantizedBlock> block = state.blocks.get(index);
        if (!block.ok()) return block.status();
        return packed_block(state, index, *block);
      });
  if (!scored.ok()) return scored.status();
  *stage.mutable_score() = to_proto(scored->score);
  *state.report.mutable_evaluation()->add_stages() = std::move(stage);
  return absl::OkStatus();
}

}  // namespace qaas::stages
