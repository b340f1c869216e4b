#pragma once

#include <cstdint>
#include <vector>

#include <torch/torch.h>

namespace qaas {

/// AdamW constants of one group of parameters.
struct AdamWOptions {
  double learning_rate = 1e-4;  ///< peak; each step multiplies it by the schedule's factor
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
};

/// AdamW (Loshchilov and Hutter 2019) over float32 parameters in groups, one fused pass per
/// parameter. Deterministic. Not thread-safe.
class AdamW {
 public:
  /// A parameter and its state.
  struct Slot {
    torch::Tensor parameter, first_moment, second_moment;  // all of one shape
    AdamWOptions options;
  };

  /// Turns requires_grad on for every parameter of the group.
  void add_group(const std::vector<torch::Tensor>& parameters, const AdamWOptions& options);

  /// One update with the gradients that backward left, which are dropped. Gradients are first
  /// scaled to a norm of at most `clip_norm` over all groups (0: not clipped). Parameters without
  /// a gradient stay as they are. Returns the norm before clipping; where that is not finite
  /// nothing is updated.
  double step(double learning_rate_factor, double clip_norm);

  /// In the order parameters were added. The tensors are the live ones: to resume, copy into the
  /// moments and set the number of steps that led to them.
  const std::vector<Slot>& slots() const { return slots_; }
  void set_steps(int64_t steps) { steps_ = steps; }

  /// Turns requires_grad off again and drops the state.
  void finish();

 private:
  std::vector<Slot> slots_;
  int64_t steps_ = 0;
};

}  // namespace qaas
