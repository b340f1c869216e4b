#include <cmath>

#include <absl/strings/str_cat.h>

#include "workers/engine/job/artifact.h"
#include "workers/engine/job/scoring.h"
#include "workers/engine/job/stage_options.h"
#include "workers/engine/job/stages/stages.h"

namespace qaas::stages {

namespace {

/// The round-to-nearest model's block: the spec's grids from min-max, no search, no data.
absl::StatusOr<DecoderBlock> nearest_block(const JobInputs& inputs, int64_t index) {
  absl::StatusOr<DecoderBlock> block = dense_block(inputs.model, index);
  if (!block.ok()) return block.status();
  prepare_block(*block, grids_of_block(inputs.job.spec(), index));
  apply_activation_quantization(*block, activations_of_block(inputs.job.spec(), index));
  return make_packed_block(inputs.model.config(), source_tensors(inputs.model), index,
                           convert_block(*block));
}

}  // namespace

absl::Status score_baselines(JobState& state) {
  state.reporter.start_phase(v1::PHASE_BASELINE);
  const JobInputs& inputs = state.inputs;
  const ModelConfig& config = inputs.model.config();
  absl::StatusOr<EvaluationScores> original = score(
      state, config, state.original_ends,
      [&](int64_t index) { return dense_block(inputs.model, index); }, ScoreExtent::kTextsAndTasks);
  if (!original.ok()) return original.status();
  if (const double loss = original->texts.front().score.loss; !std::isfinite(loss)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model '", state.spec.model(), "': its loss on the evaluation text is ", loss,
        ", expected a number; the embedding, the final norm or the head may hold NaN"));
  }
  state.original = *std::move(original);
  const absl::StatusOr<EvaluationScores> nearest = score(
      state, config, state.original_ends,
      [&](int64_t index) { return nearest_block(inputs, index); }, ScoreExtent::kTexts);
  if (!nearest.ok()) return nearest.status();

  v1::Evaluation& evaluation = *state.report.mutable_evaluation();
  evaluation.set_original_bytes(inputs.model.weight_bytes());
  for (size_t i = 0; i < inputs.evaluation.texts.size(); ++i) {
    const torch::Tensor& text = inputs.evaluation.texts[i];
    const auto describe = [&](auto& about, const v1::DataSelection& selection) {
      about.set_dataset(selection.dataset());
      about.set_windows(text.size(0));
      about.set_sequence_length(static_cast<int32_t>(text.size(1)));
      about.set_scored_tokens(text.size(0) * (text.size(1) - 1));
      about.set_same_source(inputs.same_source[i]);
      *about.mutable_original() = to_proto(state.original->texts[i].score);
      *about.mutable_round_to_nearest() = to_proto(nearest->texts[i].score);
    };
    if (i == 0) {
      describe(evaluation, state.spec.evaluation());
    } else {
      describe(*evaluation.add_texts(), state.spec.further_evaluations(static_cast<int>(i) - 1));
    }
  }
  for (const ScoredTask& task : state.original->tasks) {
    v1::TaskScore& about = *evaluation.add_tasks();
    about.set_task(task.score.name);
    about.set_questions(task.score.questions);
    *about.mutable_original() = to_proto(task.score);
  }
  return absl::OkStatus();
}

absl::Status score_stage(JobState& state, v1::StageScore stage) {
  const absl::StatusOr<EvaluationScores> scored = score(
      state, state.config(), state.ends,
      [&](int64_t index) -> absl::StatusOr<DecoderBlock> {
        absl::StatusOr<QuantizedBlock> block = state.blocks.get(index);
        if (!block.ok()) return block.status();
        return packed_block(state, index, *block);
      },
      ScoreExtent::kMainText);
  if (!scored.ok()) return scored.status();
  *stage.mutable_score() = to_proto(scored->texts.front().score);
  *state.report.mutable_evaluation()->add_stages() = std::move(stage);
  return absl::OkStatus();
}

}  // namespace qaas::stages
