#include "workers/engine/job/scoring.h"

#include <cmath>

#include "workers/engine/job/work_units.h"

namespace qaas {

absl::StatusOr<EvaluationScores> score(JobState& state, const ModelConfig& config,
                                       const ModelEnds& ends, const BlockSource& source,
                                       ScoreExtent extent) {
  const double units = score_units(state.inputs);
  double done = 0;
  const auto advance = [&](double fraction) {
    state.reporter.meter().add((fraction - done) * units);
    done = fraction;
  };
  PassOptions options;
  options.progress = [&](double fraction) {
    advance(fraction);
    v1::Progress progress;
    progress.set_step(std::lround(fraction * static_cast<double>(state.block_count() + 1)));
    progress.set_step_count(state.block_count() + 1);
    state.reporter.progress(std::move(progress));
  };
  EvaluationInputs inputs = state.inputs.evaluation;
  if (extent == ScoreExtent::kMainText) inputs.texts.resize(1);
  if (extent != ScoreExtent::kTextsAndTasks) inputs.tasks.clear();
  std::optional<ScoreReference> reference;
  if (state.original.has_value()) {
    reference.emplace(ScoreReference{state.original_ends, state.original->texts});
  }
  absl::StatusOr<EvaluationScores> scores =
      evaluate_model({.ends = ends,
                      .block_count = state.block_count(),
                      .block = source,
                      .rope = make_rope_table(config, inputs.longest())},
                     inputs, reference.has_value() ? &*reference : nullptr, options, state.stop);
  advance(1);
  return scores;
}

v1::ModelScore to_proto(const LanguageModelScore& score) {
  v1::ModelScore proto;
  proto.set_loss(score.loss);
  proto.set_perplexity(score.perplexity);
  proto.set_kl_divergence(score.kl_divergence);
  proto.set_top1_agreement(score.top1_agreement);
  proto.set_loss_stderr(score.loss_stderr);
  proto.set_loss_difference(score.loss_difference);
  proto.set_loss_difference_stderr(score.loss_difference_stderr);
  return proto;
}

v1::TaskAccuracy to_proto(const TaskScore& score) {
  v1::TaskAccuracy proto;
  proto.set_acc(score.acc);
  proto.set_acc_stderr(score.acc_stderr);
  proto.set_acc_norm(score.acc_norm);
  proto.set_acc_norm_stderr(score.acc_norm_stderr);
  return proto;
}

}  // namespace qaas
