#pragma once

#include <vector>

namespace qaas {

/// A mean and how far it may be from the population's.
struct MeanEstimate {
  double mean = 0;
  double standard_error = 0;  ///< sample standard deviation / sqrt(n); 0 for fewer than two values
};

/// Of independent values; for zeros and ones the error is sqrt(p·(1 - p)/(n - 1)).
MeanEstimate estimate_mean(const std::vector<double>& values);

}  // namespace qaas
