#pragma once

#include <cstdint>

namespace qaas {

/// How a learning rate changes over the steps of a stage, as a factor of its peak.
struct LearningRateShape {
  enum class Kind { kConstant, kCosine };
  Kind kind = Kind::kCosine;
  double warmup_ratio = 0;  ///< share of the steps that rise linearly from 0; kCosine only
  double final_ratio = 0;   ///< factor the half cosine ends at; kCosine only
};

/// Factor at `step` (from 0) of `steps`. Block-AP: cosine to 0.05 without warmup, E2E-QP: 3 %
/// warmup then cosine to 0 (EfficientQAT, implementation section of the sheet, 2.3 and 3.2).
double learning_rate_factor(const LearningRateShape& shape, int64_t step, int64_t steps);

/// What the learning rates of weights and scales are measured in.
enum class LearningRateUnit {
  kAbsolute,
  /// Steps of the projection's grid: one number then suits every model and bit width, for both are
  /// of the order of a step away from where they end. Zero points and norms stay absolute.
  kStepSize,
};

/// `rate` as AdamW takes it, for a projection whose effective scales average `mean_scale` at the
/// start of the stage.
double absolute_learning_rate(double rate, LearningRateUnit unit, double mean_scale);

}  // namespace qaas
