#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "workers/engine/kernels/group_kernels.h"
#include "workers/engine/kernels/instruction_set.h"
#include "workers/engine/kernels/parallel_ranges.h"
#include "workers/engine/kernels/quantization_kernels.h"

namespace qaas::kernels {
namespace {

constexpr int kStepsPerFactor = 4;                            ///< fine steps in a factor of 7/8
constexpr int kFactors = 16;                                  ///< 7/8 to the power 0 .. 15
constexpr int kSteps = (kFactors - 1) * kStepsPerFactor + 1;  ///< fine steps, 61
constexpr int kReach = kStepsPerFactor / 2;                   ///< fine steps around the best pair

/// (7/8)^(step / 4) by operations that are rounded alike everywhere.
std::array<float, kSteps> shrink_factors() {
  const double quarter = std::sqrt(std::sqrt(0.875));
  std::array<float, kSteps> factors;
  double factor = 1;
  for (int step = 0; step < kSteps; ++step) {
    if (step % kStepsPerFactor == 0 && step > 0) {
      factor = 0.875 * factors[static_cast<size_t>(step - kStepsPerFactor)];
    }
    factors[static_cast<size_t>(step)] = static_cast<float>(factor);
    factor *= quarter;
  }
  return factors;
}

/// Up to kFactors² qparams tried on one group, and the errors they give.
class Candidates {
 public:
  void clear() { count_ = 0; }
  void add(float scale, float zero_point) {
    wanted_scale_[count_] = scale;
    wanted_zero_point_[count_] = zero_point;
    ++count_;
  }
  /// Rounds to effective qparams, measures, returns the index of the first smallest error.
  size_t best(const GroupKernels& kernels, const GroupedMatrix& shape, const float* weight,
              const float* importance) {
    const auto count = static_cast<int64_t>(count_);
    kernels.effective_qparams(wanted_scale_.data(), wanted_zero_point_.data(), count, shape.bits,
                              scale_.data(), zero_point_.data());
    kernels.candidate_errors(shape.group_size, shape.bits, weight, importance, count, scale_.data(),
                             zero_point_.data(), error_.data());
    const auto smallest = std::min_element(error_.begin(), error_.begin() + count);
    return static_cast<size_t>(smallest - error_.begin());
  }
  float scale(size_t i) const { return scale_[i]; }
  float zero_point(size_t i) const { return zero_point_[i]; }
  float error(size_t i) const { return error_[i]; }

 private:
  static constexpr size_t kCapacity = size_t{kFactors} * kFactors;
  size_t count_ = 0;
  std::array<float, kCapacity> wanted_scale_, wanted_zero_point_;  // as computed
  std::array<float, kCapacity> scale_, zero_point_, error_;        // as stored
};

struct GroupSearch {
  const GroupKernels& kernels;
  const GroupedMatrix& shape;
  const std::array<float, kSteps>& factors;
  Candidates candidates{};

  /// The same formulas as min_max_qparams, on a range that is `low` to `high`.
  void add_range(float low, float high) {
    const float max_code = static_cast<float>((1 << shape.bits) - 1);
    const float scale = std::clamp((high - low) / max_code, 1e-4f, 1e4f);
    candidates.add(scale, -low / scale);
  }

  void asymmetric(const float* weight, const float* importance, float low, float high, float* scale,
                  float* zero_point) {
    candidates.clear();
    for (int k = 0; k < kFactors; ++k) {
      for (int l = 0; l < kFactors; ++l) {
        add_range(low * factor(k * kStepsPerFactor), high * factor(l * kStepsPerFactor));
      }
    }
    const size_t coarse = candidates.best(kernels, shape, weight, importance);
    *scale = candidates.scale(coarse);
    *zero_point = candidates.zero_point(coarse);
    const float coarse_error = candidates.error(coarse);

    const int at_low = static_cast<int>(coarse) / kFactors * kStepsPerFactor;
    const int at_high = static_cast<int>(coarse) % kFactors * kStepsPerFactor;
    candidates.clear();
    for (int k = std::max(0, at_low - kReach); k <= std::min(kSteps - 1, at_low + kReach); ++k) {
      for (int l = std::max(0, at_high - kReach); l <= std::min(kSteps - 1, at_high + kReach);
           ++l) {
        add_range(low * factor(k), high * factor(l));
      }
    }
    const size_t fine = candidates.best(kernels, shape, weight, importance);
    if (candidates.error(fine) < coarse_error) {
      *scale = candidates.scale(fine);
      *zero_point = candidates.zero_point(fine);
    }
  }

  void symmetric(const float* weight, const float* importance, float low, float high, float* scale,
                 float* zero_point) {
    const float half = static_cast<float>(1 << (shape.bits - 1));
    const float covering = std::max(-low / half, high / (half - 1));
    candidates.clear();
    for (int k = 0; k < kSteps; ++k) candidates.add(covering * factor(k), half);
    const size_t best = candidates.best(kernels, shape, weight, importance);
    *scale = candidates.scale(best);
    *zero_point = half;
  }

 private:
  float factor(int step) const { return factors[static_cast<size_t>(step)]; }
};

}  // namespace

void clip_search(const GroupedMatrix& shape, ZeroPoint zero_point_kind, const float* weight,
                 const float* importance, float* scale, float* zero_point, int threads) {
  assert(shape.group_size > 0 && shape.cols % shape.group_size == 0);
  static const std::array<float, kSteps> factors = shrink_factors();
  const int64_t groups_per_row = shape.cols / shape.group_size;
  parallel_ranges(shape.rows * groups_per_row, 16, threads, [&](int64_t begin, int64_t end) {
    GroupSearch search{.kernels = best_group_kernels(), .shape = shape, .factors = factors};
    for (int64_t g = begin; g < end; ++g) {
      const float* w = weight + g * shape.group_size;
      const float* h =
          importance == nullptr ? nullptr : importance + g % groups_per_row * shape.group_size;
      const auto [least, greatest] = std::minmax_element(w, w + shape.group_size);
      const float low = std::min(*least, 0.0f), high = std::max(*greatest, 0.0f);
      if (zero_point_kind == ZeroPoint::kMiddle) {
        search.symmetric(w, h, low, high, scale + g, zero_point + g);
      } else {
        search.asymmetric(w, h, low, high, scale + g, zero_point + g);
      }
    }
  });
}

}  // namespace qaas::kernels
