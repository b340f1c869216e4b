#pragma once

#include <cstdint>
#include <stop_token>
#include <vector>

#include <absl/status/statusor.h>

#include "workers/engine/model/decoder.h"
#include "workers/engine/train/adamw.h"
#include "workers/engine/train/learning_rate.h"
#include "workers/engine/train/training.h"

namespace qaas {

/// E2E-QP of EfficientQAT (arXiv 2407.11062, section 3.3): the whole packed model trains the scales
/// of its PackedProjections on next-token cross-entropy; all else is fixed.
struct EndToEndOptions {
  int64_t epochs = 1;
  int64_t batch_size = 32;       ///< windows per optimizer step
  int64_t micro_batch_size = 4;  ///< windows per forward pass; gradients accumulate
  AdamWOptions scale{.learning_rate = 2e-5};
  LearningRateShape schedule{.warmup_ratio = 0.03};
  double clip_norm = 0.3;
  bool shuffle = false;
  uint64_t seed = 2;
  torch::ScalarType compute = torch::kFloat32;
  /// Above this many bytes of activations per forward pass, blocks are run again in the backward
  /// pass instead of keeping them.
  int64_t activation_budget = int64_t{4} << 30;
};

/// Trains the scales of `blocks` in place. ids: [windows, seq] int64. kCancelled when `stop` is
/// requested; kInternal when the loss is not finite.
absl::StatusOr<TrainingReport> train_end_to_end(const ModelEnds& ends,
                                                std::vector<DecoderBlock>& blocks,
                                                const torch::Tensor& ids, const RopeTable& rope,
                                                const EndToEndOptions& options,
                                                const StepSink& sink, std::stop_token stop);

}  // namespace qaas
