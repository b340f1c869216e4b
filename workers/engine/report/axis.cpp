#include "workers/engine/report/axis.h"

#include <algorithm>
#include <cmath>

#include <absl/strings/str_format.h>

namespace qaas::report {
namespace {

constexpr int kMostTicks = 6;

/// The shortest text of a tick: "0.25", "100", "1e-07".
std::string tick_label(double value) { return absl::StrFormat("%g", value); }

/// 1, 2 or 5 times a power of ten, not below `step`.
double round_step(double step) {
  const double power = std::pow(10.0, std::floor(std::log10(step)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= step * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

}  // namespace

Axis::Axis(Scale scale, double low, double high, double first_pixel, double last_pixel, Ends ends)
    : scale_(scale), low_(low), high_(high), first_pixel_(first_pixel), last_pixel_(last_pixel) {
  if (!std::isfinite(low_) || !std::isfinite(high_) || low_ > high_) low_ = 0, high_ = 1;
  // Beyond this, sums and quotients of two values may overflow.
  constexpr double kLargest = 1e150, kSmallest = 1e-150;
  low_ = std::clamp(low_, -kLargest, kLargest);
  high_ = std::clamp(high_, -kLargest, kLargest);
  if (scale_ == Scale::kLog && low_ < kSmallest) scale_ = Scale::kLinear;
  if (scale_ == Scale::kLog) {
    if (high_ < low_ * 1.2) high_ = low_ * 1.2, low_ /= 1.2;
    add_log_ticks();
  } else {
    if (high_ - low_ <= std::max(1e-12 * std::fabs(high_), kSmallest)) {
      const double margin = std::fabs(high_) < kSmallest ? 1 : std::fabs(high_) / 10;
      low_ -= margin, high_ += margin;
    }
    const double data_low = low_, data_high = high_;
    add_linear_ticks();
    if (ends == Ends::kData) low_ = data_low, high_ = data_high;
  }
}

double Axis::pixel(double value) const {
  double share = scale_ == Scale::kLog ? (std::log(std::max(value, low_)) - std::log(low_)) /
                                             (std::log(high_) - std::log(low_))
                                       : (value - low_) / (high_ - low_);
  share = std::isfinite(share) ? std::clamp(share, 0.0, 1.0) : 0;
  return first_pixel_ + share * (last_pixel_ - first_pixel_);
}

void Axis::add_linear_ticks() {
  const double step = round_step((high_ - low_) / (kMostTicks - 1));
  const double first = std::floor(low_ / step * (1 + 1e-12)), last = std::ceil(high_ / step);
  for (double i = first; i <= last; ++i) ticks_.push_back({i * step, tick_label(i * step)});
  low_ = std::min(low_, ticks_.front().value);
  high_ = std::max(high_, ticks_.back().value);
}

void Axis::add_log_ticks() {
  const double decades = std::log10(high_) - std::log10(low_);
  // 1, 2, 5 over a few decades; then powers of ten, every n-th where there are many.
  const std::vector<double> factors = decades < 2.5 ? std::vector{1.0, 2.0, 5.0} : std::vector{1.0};
  const int stride = std::max(1, static_cast<int>(std::ceil(decades / (kMostTicks + 1))));
  const int first = static_cast<int>(std::floor(std::log10(low_)));
  const int last = static_cast<int>(std::ceil(std::log10(high_)));
  for (int power = first; power <= last; power += stride) {
    for (const double factor : factors) {
      const double value = factor * std::pow(10.0, power);
      if (value >= low_ * (1 - 1e-9) && value <= high_ * (1 + 1e-9)) {
        ticks_.push_back({value, tick_label(value)});
      }
    }
  }
}

Scale fitting_scale(const std::vector<double>& values) {
  double low = INFINITY, high = 0;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    if (value <= 0) return Scale::kLinear;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  return high >= 10 * low ? Scale::kLog : Scale::kLinear;
}

}  // namespace qaas::report
