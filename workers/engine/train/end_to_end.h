#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <stop_token>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "workers/engine/model/decoder.h"
#include "workers/engine/train/adamw.h"
#include "workers/engine/train/learning_rate.h"
#include "workers/engine/train/objective.h"
#include "workers/engine/train/teacher.h"
#include "workers/engine/train/training.h"

namespace qaas {

/// True for a projection ("self_attn.o_proj") of block `block` that is held at its quantized value:
/// neither its weights nor its scales and zero points train. ov-freeze (arXiv 2403.18159): o_proj
/// and v_proj.
using FreezePredicate = std::function<bool(int64_t block, const std::string& projection)>;

/// Training of the whole model on next tokens. The defaults are E2E-QP of EfficientQAT (arXiv
/// 2407.11062, section 3.3): scales on cross-entropy. With an objective that needs a teacher it is
/// quantization-aware distillation. What has a learning rate of 0 stays as it is.
struct EndToEndOptions {
  int64_t epochs = 1;
  int64_t batch_size = 32;       ///< windows per optimizer step
  int64_t micro_batch_size = 4;  ///< windows per forward pass; gradients accumulate
  Objective objective;
  LearningRateUnit unit = LearningRateUnit::kAbsolute;  ///< of the rates of scales and weights
  AdamWOptions scale{.learning_rate = 2e-5};
  AdamWOptions zero_point{.learning_rate = 0};       ///< in codes; symmetric grids' never train
  AdamWOptions weight{.learning_rate = 0};           ///< master weights of FakeQuantProjections
  AdamWOptions norm{.learning_rate = 0};             ///< of the blocks
  AdamWOptions final_norm{.learning_rate = 0};       ///< in place: `ends` must have one of its own
  AdamWOptions activation_clip{.learning_rate = 0};  ///< of quantized inputs; those frozen stay
  FreezePredicate frozen;                            ///< empty: nothing
  LearningRateShape schedule{.warmup_ratio = 0.03};
  double clip_norm = 0.3;  ///< largest norm of all gradients together; 0: not clipped
  bool shuffle = false;
  uint64_t seed = 2;
  int64_t validation_windows = 0;  ///< the last ones: held out, their loss is measured
  int64_t validation_steps = 0;    ///< optimizer steps between measurements; 0: an epoch's
  /// Keep the parameters of the lowest validation loss, the start included. Without validation
  /// windows, the last.
  bool restore_best = true;
  /// Measurements in a row without a lower validation loss after which training ends; 0: never.
  int64_t patience = 0;
  torch::ScalarType compute = torch::kFloat32;
  /// Above this many bytes of activations per forward pass, blocks are run again in the backward
  /// pass instead of keeping them.
  int64_t activation_budget = int64_t{4} << 30;
  /// Frozen projections are dequantized once, in the compute type, up to this many bytes in all;
  /// those beyond it again for every product.
  int64_t frozen_weight_budget = int64_t{1} << 30;
};

/// A training that stands after `step` steps, with all that decides how it goes on.
struct EndToEndState {
  int64_t step = 0;
  std::vector<double> losses;             ///< one a step
  std::vector<double> validation_losses;  ///< as in TrainingReport
  std::vector<int64_t> validation_steps;
  /// By role and name, float32: "parameter/block.0.mlp.up_proj.scale", "first_moment/…",
  /// "second_moment/…", and, where validation looks for the best, "best/…".
  std::map<std::string, torch::Tensor> tensors;
};

/// How a training is kept and gone on with.
struct EndToEndCheckpoints {
  /// Goes on from here; the blocks given must be those the training started with.
  const EndToEndState* resume_from = nullptr;
  /// Takes the state, whose tensors are valid during the call only; a failure ends the training.
  /// Empty: never called.
  std::function<absl::Status(const EndToEndState&)> save;
  int64_t every_steps = 64;  ///< optimizer steps between calls; also called when stopped
};

/// Trains `blocks` in place. Their projections may be packed, fake-quantized and dense in any mix;
/// dense ones are fixed. ids: [windows, seq] int64; `teacher` (may be null) covers the same
/// windows. A training that was interrupted and resumed gives the same bytes as one that was not
/// (same CPU kind and threads); the report's tokens and seconds are those since the resume. On
/// return, also a failed one, nothing requires a gradient any more. kInvalidArgument: a value out
/// of its range, nothing to train, no window left to train on, or a state of another training.
/// kFailedPrecondition: the objective needs a teacher. kCancelled: `stop` was requested. kInternal,
/// naming the step: a loss or a gradient that is not finite.
absl::StatusOr<TrainingReport> train_end_to_end(
    const ModelEnds& ends, std::vector<DecoderBlock>& blocks, const torch::Tensor& ids,
    const RopeTable& rope, const EndToEndOptions& options, const Teacher* teacher,
    const EndToEndCheckpoints& checkpoints, const StepSink& sink, std::stop_token stop);

}  // namespace qaas
