#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>

#include <absl/status/statusor.h>
#include <torch/torch.h>

#include "workers/engine/model/decoder.h"

namespace qaas {

/// Loss, perplexity and divergence on windows of text, in float32 throughout.
/// Convention: non-overlapping windows; in each, every token but the first is predicted from those
/// before it; loss is the mean over windows of each window's mean cross-entropy (nats).
struct LanguageModelScore {
  double loss = 0;
  double perplexity = 0;     ///< exp(loss)
  double kl_divergence = 0;  ///< mean KL(reference || model) per predicted token, nats
};

/// Makes block `index` of the model to score; called once a block, in order.
using BlockSource = std::function<absl::StatusOr<DecoderBlock>(int64_t index)>;

/// Called after each block with the share of the scoring that is done.
using ScoreProgress = std::function<void(double fraction)>;

/// A scored model and what is needed to compare others with it.
struct ScoredModel {
  LanguageModelScore score;
  torch::Tensor hidden;  ///< after the final norm, [windows, seq, dim] float32
};

/// Runs all windows through one block after the other, so that one block is in memory at a time.
/// ids: [windows, seq] int64. With `reference` (the original's result on the same ids) the
/// divergence from it is computed too. kCancelled when `stop` is requested.
absl::StatusOr<ScoredModel> score_model(const ModelEnds& ends, int64_t block_count,
                                        const BlockSource& source, const torch::Tensor& ids,
                                        const RopeTable& rope, const ModelEnds& reference_ends,
                                        const ScoredModel* reference, const ScoreProgress& progress,
                                        std::stop_token stop);

}  // namespace qaas
