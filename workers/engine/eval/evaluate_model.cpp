#include "workers/engine/eval/evaluate_model.h"

#include <algorithm>

#include <absl/status/status.h>

namespace qaas {

int64_t EvaluationInputs::longest() const {
  int64_t longest = 0;
  for (const torch::Tensor& ids : texts) longest = std::max(longest, ids.size(1));
  for (const Task& task : tasks) {
    for (const Question& question : task.questions) {
      for (const Choice& choice : question.choices) {
        longest = std::max(longest, std::ssize(choice.tokens));
      }
    }
  }
  return longest;
}

absl::StatusOr<EvaluationScores> evaluate_model(const BlockwiseModel& model,
                                                const EvaluationInputs& inputs,
                                                const ScoreReference* reference,
                                                const PassOptions& options, std::stop_token stop) {
  std::vector<SequenceGroup> groups;
  for (const torch::Tensor& ids : inputs.texts) groups.push_back({ids});
  std::vector<TaskSequences> sequences;
  for (const Task& task : inputs.tasks) {
    groups.push_back(sequences.emplace_back(task).batches());
  }
  absl::StatusOr<std::vector<torch::Tensor>> hidden = hidden_states(model, groups, options, stop);
  if (!hidden.ok()) return hidden.status();

  EvaluationScores scores;
  for (size_t i = 0; i < inputs.texts.size(); ++i) {
    const torch::Tensor& ids = inputs.texts[i];  // [windows, seq]
    absl::StatusOr<ScoredModel> scored =
        score_hidden(model.ends, (*hidden)[i].view({ids.size(0), ids.size(1), -1}), ids,
                     reference == nullptr ? model.ends : reference->ends,
                     reference == nullptr ? nullptr : &reference->texts[i], stop);
    if (!scored.ok()) return scored.status();
    scores.texts.push_back(*std::move(scored));
  }
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (stop.stop_requested()) return absl::CancelledError("scoring was stopped");
    torch::Tensor& states = (*hidden)[inputs.texts.size() + i];  // [tokens, dim]
    scores.tasks.push_back(sequences[i].score(model.ends, states));
    states.reset();
  }
  return scores;
}

}  // namespace qaas
