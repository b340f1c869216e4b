#include "workers/engine/train/learning_rate.h"

#include <cmath>
#include <numbers>

namespace qaas {

double learning_rate_factor(const LearningRateShape& shape, int64_t step, int64_t steps) {
  if (shape.kind == LearningRateShape::Kind::kConstant) return 1.0;
  const auto warmup =
      static_cast<int64_t>(std::ceil(shape.warmup_ratio * static_cast<double>(steps)));
  if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup + 1);
  const double progress = static_cast<double>(step - warmup) /
                          static_cast<double>(std::max<int64_t>(1, steps - warmup));
  return shape.final_ratio +
         (1.0 - shape.final_ratio) * 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

double absolute_learning_rate(double rate, LearningRateUnit unit, double mean_scale) {
  return unit == LearningRateUnit::kStepSize ? rate * mean_scale : rate;
}

}  // namespace qaas
