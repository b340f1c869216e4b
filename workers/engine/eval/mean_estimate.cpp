#include "workers/engine/eval/mean_estimate.h"

#include <cmath>
#include <numeric>

namespace qaas {

MeanEstimate estimate_mean(const std::vector<double>& values) {
  MeanEstimate estimate;
  if (values.empty()) return estimate;
  const auto count = static_cast<double>(values.size());
  estimate.mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  if (values.size() < 2) return estimate;
  double squares = 0;
  for (const double value : values) squares += (value - estimate.mean) * (value - estimate.mean);
  estimate.standard_error = std::sqrt(squares / (count - 1) / count);
  return estimate;
}

}  // namespace qaas
