#include "workers/engine/report/training_curve.h"

#include <algorithm>
#include <cassert>
#include <numeric>

namespace qaas {
namespace {

constexpr int kEndSteps = 16;

double mean(const v1::TrainingCurve& curve, int first, int last) {
  if (first >= last) return 0;
  return std::accumulate(curve.losses().begin() + first, curve.losses().begin() + last, 0.0) /
         (last - first);
}

}  // namespace

v1::TrainingCurve thinned(const v1::TrainingCurve& curve, int most) {
  assert(most >= 2);
  const int count = std::min(curve.steps_size(), curve.losses_size());
  if (count <= most) return curve;
  v1::TrainingCurve result = curve;
  result.clear_steps();
  result.clear_losses();
  int from = 0;  // first step not yet seen
  for (int64_t i = 0; i < most; ++i) {
    const int at = static_cast<int>(i * (count - 1) / (most - 1));
    result.add_steps(curve.steps(at));
    result.add_losses(mean(curve, from, at + 1));
    from = at + 1;
  }
  return result;
}

double first_steps_loss(const v1::TrainingCurve& curve) {
  return mean(curve, 0, std::min(kEndSteps, curve.losses_size()));
}

double last_steps_loss(const v1::TrainingCurve& curve) {
  return mean(curve, std::max(0, curve.losses_size() - kEndSteps), curve.losses_size());
}

}  // namespace qaas
