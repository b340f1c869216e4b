#pragma once

#include <string>
#include <vector>

namespace qaas::report {

/// How values become positions.
enum class Scale { kLinear, kLog };

/// Where an axis ends: at the round values around the data, or at the data.
enum class Ends { kRound, kData };

/// An axis of a chart: a range of values over a range of pixels, with ticks at round values.
class Axis {
 public:
  /// Covers low..high; a range that is empty or not finite is replaced. kLog needs positive values
  /// and falls back to kLinear without them; it ends at the data.
  Axis(Scale scale, double low, double high, double first_pixel, double last_pixel,
       Ends ends = Ends::kRound);

  Scale scale() const { return scale_; }
  double low() const { return low_; }
  /// Pixel of a value; values outside the range land on its ends.
  double pixel(double value) const;

  struct Tick {
    double value = 0;
    std::string label;
  };
  const std::vector<Tick>& ticks() const { return ticks_; }

 private:
  void add_linear_ticks();
  void add_log_ticks();

  Scale scale_;
  double low_, high_;
  double first_pixel_, last_pixel_;
  std::vector<Tick> ticks_;
};

/// kLog where all values are positive and span a factor of 10 or more, else kLinear.
Scale fitting_scale(const std::vector<double>& values);

}  // namespace qaas::report
