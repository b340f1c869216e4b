#pragma once

#include <functional>
#include <stop_token>
#include <vector>

#include <absl/status/statusor.h>
#include <torch/torch.h>

#include "workers/engine/model/decoder.h"

namespace qaas {

/// Makes block `index` of the model to score; called once a block, in order.
using BlockSource = std::function<absl::StatusOr<DecoderBlock>(int64_t index)>;

/// Called after each block with the share of the scoring that is done.
using ScoreProgress = std::function<void(double fraction)>;

/// Hands out an uninitialised float32 tensor of these sizes: in memory, or in a mapped file.
using TensorAllocator = std::function<absl::StatusOr<torch::Tensor>(at::IntArrayRef sizes)>;

/// A model as scoring sees it. What it refers to outlives the scoring.
struct BlockwiseModel {
  const ModelEnds& ends;
  int64_t block_count = 0;
  BlockSource block;
  RopeTable rope;  ///< at least as long as the longest sequence
};

/// How a pass runs and what it tells.
struct PassOptions {
  TensorAllocator allocate;  ///< for the residual streams; empty: memory
  ScoreProgress progress = [](double) {};
};

/// Token sequences that belong together: each tensor [sequences, length] int64, of any lengths.
using SequenceGroup = std::vector<torch::Tensor>;

/// Hidden states after the final norm of every group, in float32: [tokens, dim] per group, the
/// tokens of its tensors one after the other, each row-major. All groups go through one block after
/// the other, so each block is made once and one is in memory at a time; beside it there are the
/// residual streams, one float32 [tokens, dim] per group. kCancelled when `stop` is requested.
absl::StatusOr<std::vector<torch::Tensor>> hidden_states(const BlockwiseModel& model,
                                                         const std::vector<SequenceGroup>& groups,
                                                         const PassOptions& options,
                                                         std::stop_token stop);

}  // namespace qaas
