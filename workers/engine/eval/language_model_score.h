#pragma once

#include <cstdint>
#include <stop_token>
#include <vector>

#include <absl/status/statusor.h>
#include <torch/torch.h>

#include "workers/engine/eval/block_pass.h"

namespace qaas {

/// Loss, perplexity and distance to a reference on windows of text, in float32 throughout.
/// Convention: non-overlapping windows; in each, every token but the first is predicted from those
/// before it; loss is the mean over windows of each window's mean cross-entropy (nats). Standard
/// errors are those of a mean over windows: sample standard deviation / sqrt(windows), and 0 for
/// one window. A model scored without a reference is its own.
struct LanguageModelScore {
  double loss = 0;
  double perplexity = 0;      ///< exp(loss)
  double kl_divergence = 0;   ///< mean KL(reference || model) per predicted token, nats
  double top1_agreement = 1;  ///< share of predicted tokens with the reference's likeliest token
  double loss_stderr = 0;
  double loss_difference = 0;  ///< mean over windows of loss minus the reference's on that window
  double loss_difference_stderr = 0;
};

/// A scored model and what is needed to compare others with it.
struct ScoredModel {
  LanguageModelScore score;
  torch::Tensor hidden;               ///< after the final norm, [windows, seq, dim] float32
  std::vector<double> window_losses;  ///< nats per token, one a window
};

/// Scores one text from its hidden states (as in ScoredModel). ids: [windows, seq] int64, seq at
/// least 2. `reference`: the original's result on the same ids, or null. kCancelled when `stop` is
/// requested.
absl::StatusOr<ScoredModel> score_hidden(const ModelEnds& ends, const torch::Tensor& hidden,
                                         const torch::Tensor& ids, const ModelEnds& reference_ends,
                                         const ScoredModel* reference, const std::stop_token& stop);

/// Runs all windows through one block after the other, so that one block is in memory at a time,
/// and scores them as score_hidden does. For several texts or tasks at once: evaluate_model.
absl::StatusOr<ScoredModel> score_model(const ModelEnds& ends, int64_t block_count,
                                        const BlockSource& source, const torch::Tensor& ids,
                                        const RopeTable& rope, const ModelEnds& reference_ends,
                                        const ScoredModel* reference, const ScoreProgress& progress,
                                        std::stop_token stop);

}  // namespace qaas
