#pragma once

#include <cstdint>
#include <stop_token>

#include <absl/status/statusor.h>

#include "workers/engine/model/decoder_block.h"
#include "workers/engine/train/adamw.h"
#include "workers/engine/train/learning_rate.h"
#include "workers/engine/train/training.h"

namespace qaas {

/// Block-AP of EfficientQAT (arXiv 2407.11062, section 3.2): trains every parameter of one block
/// (weights, norms, scales, zero points) so that, fed the quantized stream, it gives the output the
/// full-precision block gives on the full-precision stream. Loss: mean squared error.
struct BlockApOptions {
  int64_t epochs = 2;
  int64_t batch_size = 2;                      ///< windows per step
  AdamWOptions quant{.learning_rate = 1e-4};   ///< scales and zero points
  AdamWOptions weight{.learning_rate = 2e-5};  ///< weights and norms
  LearningRateShape schedule{.final_ratio = 0.05};
  double clip_norm = 0;  ///< 0: not clipped, as published
  bool shuffle = false;
  uint64_t seed = 2;
  torch::ScalarType compute = torch::kFloat32;  ///< of the products
};

/// Trains `block`, whose quantized projections must be FakeQuantProjections, in place.
/// inputs, targets: [windows, seq, dim] float32. kCancelled when `stop` is requested (the block is
/// then half trained and of no use); kInternal when the loss is not finite.
absl::StatusOr<TrainingReport> block_ap(DecoderBlock& block, const torch::Tensor& inputs,
                                        const torch::Tensor& targets, const RopeTable& rope,
                                        const BlockApOptions& options, const StepSink& sink,
                                        std::stop_token stop);

/// The block's output on every window, without gradient: [windows, seq, dim] float32 → same.
torch::Tensor run_block(DecoderBlock& block, const torch::Tensor& inputs, const RopeTable& rope,
                        torch::ScalarType compute);

/// The same written to `outputs` (of the inputs' shape), which may be `inputs` itself: a stream
/// then advances in place and exists once. In memory at a time besides: a few windows' activations.
void run_block_into(DecoderBlock& block, const torch::Tensor& inputs, const torch::Tensor& outputs,
                    const RopeTable& rope, torch::ScalarType compute);

}  // namespace qaas
