#pragma once

#include <torch/torch.h>

namespace qaas {

/// Running moments of values, in double.
class Moments {
 public:
  void add(const torch::Tensor& values) {
    const torch::Tensor x = values.to(torch::kFloat64);
    const torch::Tensor square = x * x;
    count_ += static_cast<double>(x.numel());
    sum_ += x.sum().item<double>();
    square_ += square.sum().item<double>();
    cube_ += (square * x).sum().item<double>();
    fourth_ += (square * square).sum().item<double>();
  }

  double mean() const { return count_ > 0 ? sum_ / count_ : 0; }
  double variance() const {
    const double m = mean();
    return count_ > 0 ? square_ / count_ - m * m : 0;
  }
  /// Fourth central moment over the squared variance: 3 for a Gaussian, 0 where nothing varies.
  double kurtosis() const {
    const double m = mean(), v = variance();
    if (!(v > 0)) return 0;
    const double fourth = fourth_ / count_ - 4 * m * cube_ / count_ + 6 * m * m * square_ / count_ -
                          3 * m * m * m * m;
    return fourth / (v * v);
  }

 private:
  double count_ = 0, sum_ = 0, square_ = 0, cube_ = 0, fourth_ = 0;
};

}  // namespace qaas
