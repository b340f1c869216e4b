#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "workers/engine/eval/block_pass.h"

namespace qaas {

/// One answer as the model sees it: a context and a continuation, as token ids.
struct Choice {
  std::vector<int32_t> tokens;
  int64_t scored = 0;  ///< tokens at the end that are the continuation: at least 1, not all
  int64_t bytes = 0;   ///< length of the answer's text, for acc_norm
};

/// A question with its answers, of which one is right.
struct Question {
  std::vector<Choice> choices;
  int64_t gold = 0;
};

struct Task {
  std::string name;
  std::vector<Question> questions;
};

/// One model on one task. Conventions of lm-evaluation-harness: acc counts the questions whose
/// right choice has the highest log-likelihood, summed over its continuation's tokens (the first of
/// equals is the answer given); acc_norm divides by the length of the choice's text in bytes;
/// standard errors are sqrt(p·(1 - p)/(n - 1)).
struct TaskScore {
  std::string name;
  int64_t questions = 0;
  double acc = 0;
  double acc_stderr = 0;
  double acc_norm = 0;
  double acc_norm_stderr = 0;
};

/// A score with the log-likelihoods behind it: nats, one a choice, by question.
struct ScoredTask {
  TaskScore score;
  std::vector<std::vector<double>> log_likelihoods;
};

/// The figures from the log-likelihoods of every choice.
TaskScore score_choices(const Task& task, const std::vector<std::vector<double>>& log_likelihoods);

/// A task's choices as batches of nearly equal length. What two choices share in full (all tokens
/// but the last) is computed once.
class TaskSequences {
 public:
  explicit TaskSequences(const Task& task);

  /// [sequences, length] int64 each, shortest first, padded at the end: a causal model's hidden
  /// states of the real tokens do not depend on what follows.
  const SequenceGroup& batches() const { return batches_; }

  /// Scores the task from its hidden states [tokens, dim] float32, after the final norm.
  ScoredTask score(const ModelEnds& ends, const torch::Tensor& hidden) const;

 private:
  const Task& task_;
  SequenceGroup batches_;
  std::vector<int64_t> first_rows_;  // of each choice, question by question: row of its first token
};

}  // namespace qaas
