#pragma once

#include <vector>

#include "workers/engine/eval/language_model_score.h"
#include "workers/engine/eval/multiple_choice.h"

namespace qaas {

/// What a model is measured on.
struct EvaluationInputs {
  std::vector<torch::Tensor> texts;  ///< [windows, seq] int64 each
  std::vector<Task> tasks;

  /// Tokens of the longest sequence: what the model's rotary table must reach.
  int64_t longest() const;
};

struct EvaluationScores {
  std::vector<ScoredModel> texts;
  std::vector<ScoredTask> tasks;
};

/// The original to compare with, scored on the same texts.
struct ScoreReference {
  const ModelEnds& ends;
  const std::vector<ScoredModel>& texts;
};

/// Scores a model on all texts and tasks in one pass: each block is made once, and one is in memory
/// at a time. reference: null where `model` is the original. Fails as hidden_states does.
absl::StatusOr<EvaluationScores> evaluate_model(const BlockwiseModel& model,
                                                const EvaluationInputs& inputs,
                                                const ScoreReference* reference,
                                                const PassOptions& options, std::stop_token stop);

}  // namespace qaas
