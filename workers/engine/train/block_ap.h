#pragma once

#include <cstdint>
#include <stop_token>

#include <absl/status/statusor.h>

#include "workers/engine/model/decoder_block.h"
#include "workers/engine/train/adamw.h"
#include "workers/engine/train/learning_rate.h"
#include "workers/engine/train/training.h"

namespace qaas {

/// Which parameters of a block train: the ablation of EfficientQAT (arXiv 2407.11062, table
/// "trainable parameters"). Zero points of symmetric grids never do; norms do where weights do
/// without a bound, as in the published code.
enum class BlockApTrainable {
  kClipping,   ///< each group's range through clip factors: see ClippedRange
  kScaleZero,  ///< scales and zero points
  /// Which neighbour each weight is rounded to (SignRound, arXiv 2309.05516, equation 3): an offset
  /// of at most half a step is added before rounding. Here the weight itself trains and is held,
  /// after every step, to half a step around where it started, which is the same for a fixed scale.
  kRounding,
  kScaleZeroRounding,  ///< both; half a step is that of the scales at the start
  kScaleZeroWeight,    ///< all: the published method
  kWeight,             ///< weights and norms
};

/// Block-AP of EfficientQAT (section 3.2): trains one block so that, fed the quantized stream, it
/// gives the output the full-precision block gives on the full-precision stream. Loss: mean squared
/// error. A learning rate of 0 leaves those parameters as they are.
struct BlockApOptions {
  BlockApTrainable trainable = BlockApTrainable::kScaleZeroWeight;
  int64_t epochs = 2;
  int64_t batch_size = 2;                               ///< windows per step
  LearningRateUnit unit = LearningRateUnit::kAbsolute;  ///< of the rates of scales and weights
  AdamWOptions scale{.learning_rate = 1e-4};
  AdamWOptions zero_point{.learning_rate = 1e-4};  ///< in codes; published: as the scales'
  AdamWOptions weight{.learning_rate = 2e-5};
  AdamWOptions norm{.learning_rate = 2e-5};
  AdamWOptions clip_factor{.learning_rate = 1e-3};   ///< share of a group's range; kClipping only
  AdamWOptions activation_clip{.learning_rate = 0};  ///< of activation-quantized inputs
  LearningRateShape schedule{.final_ratio = 0.05};
  double clip_norm = 0;  ///< largest norm of all gradients together; 0: not clipped, as published
  bool shuffle = false;
  uint64_t seed = 2;
  int64_t validation_windows = 0;  ///< the last ones: held out, their loss measured every epoch
  /// Keep the parameters of the epoch with the lowest validation loss, the start included. Without
  /// validation windows, the last.
  bool restore_best = true;
  /// Epochs in a row without a lower validation loss after which training ends; 0: never.
  int64_t patience = 0;
  torch::ScalarType compute = torch::kFloat32;  ///< of the products
};

/// Trains `block`, whose quantized projections must be FakeQuantProjections, in place.
/// inputs, targets: [windows, seq, dim] float32, contiguous; they may lie in files
/// (ActivationCache). kInvalidArgument where validation leaves no window to train on; kCancelled
/// when `stop` is requested (the block is then half trained and of no use); kInternal when the loss
/// is not finite.
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
