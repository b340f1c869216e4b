#include "workers/engine/job/scoring.h"

#include <cmath>

#include "workers/engine/job/work_units.h"

namespace qaas {

absl::StatusOr<ScoredModel> score(JobState& state, const ModelConfig& config, const ModelEnds& ends,
                                  const BlockSource& source) {
  const double units = score_units(state.inputs);
  double done = 0;
  const auto advance = [&](double fraction) {
    state.reporter.meter().add((fraction - done) * units);
    done = fraction;
  };
  const ScoreProgress progress = [&](double fraction) {
    advance(fraction);
    v1::Progress progress;
    progress.set_step(std::lround(fraction * static_cast<double>(state.block_count() + 1)));
    progress.set_step_count(state.block_count() + 1);
    state.reporter.progress(std::move(progress));
  };
  absl::StatusOr<ScoredModel> scored =
      score_model(ends, state.block_count(), source, state.inputs.evaluation,
                  make_rope_table(config, state.inputs.evaluation.size(1)), state.original_ends,
                  state.original.has_value() ? &*state.original : nullptr, progress, state.stop);
  advance(1);
  return scored;
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

}  // namespace qaas
