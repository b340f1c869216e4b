#include "workers/engine/quant/clip_search.h"

#include <cmath>

#include "tests/engine/quant/grid_cases.h"
#include "tests/support/tensor_matchers.h"

namespace qaas {
namespace {

using testing::all_grids;
using testing::grid_name;
using testing::kCols;
using testing::kRows;
using testing::random_weight;
using testing::same_bits;

/// Error of each group, [rows, groups] float64.
torch::Tensor group_errors(const torch::Tensor& weight, const Qparams& qparams,
                           const AffineGrid& grid, const torch::Tensor& importance) {
  torch::Tensor squares =
      (fake_quantize_reference(weight, qparams, grid) - weight).to(torch::kFloat64).square();
  if (importance.defined()) squares = squares * importance.to(torch::kFloat64);
  return squares.view({weight.size(0), -1, grid.group_size}).sum(-1);
}

/// The search as documented, candidate by candidate over all groups at once.
class PlainSearch {
 public:
  PlainSearch(const torch::Tensor& weight, const AffineGrid& grid, const torch::Tensor& importance)
      : weight_(weight), grid_(grid), importance_(importance) {
    const torch::Tensor groups = weight.view({weight.size(0), -1, grid.group_size});
    low_ = groups.amin(-1).clamp_max(0);
    high_ = groups.amax(-1).clamp_min(0);
    error_ = torch::full_like(low_, INFINITY, torch::kFloat64);
    best_ = {torch::zeros_like(low_), torch::zeros_like(low_)};
  }

  Qparams run() {
    if (grid_.symmetric) {
      const double half = std::exp2(grid_.bits - 1);
      const torch::Tensor covering = torch::maximum(-low_ / half, high_ / (half - 1));
      for (int step = 0; step <= 60; ++step) {
        consider({covering * factor(step), torch::full_like(covering, half)}, {});
      }
      return best_;
    }
    torch::Tensor at_low = torch::zeros_like(low_), at_high = torch::zeros_like(low_);
    for (int k = 0; k <= 60; k += 4) {
      for (int l = 0; l <= 60; l += 4) {
        const torch::Tensor better = consider(range(low_ * factor(k), high_ * factor(l)), {});
        at_low = torch::where(better, torch::full_like(at_low, k), at_low);
        at_high = torch::where(better, torch::full_like(at_high, l), at_high);
      }
    }
    for (int k = -2; k <= 2; ++k) {
      for (int l = -2; l <= 2; ++l) {
        const torch::Tensor a = at_low + k, b = at_high + l;
        const torch::Tensor allowed = (a >= 0) & (a <= 60) & (b >= 0) & (b <= 60);
        consider(range(low_ * torch::pow(0.875, a / 4), high_ * torch::pow(0.875, b / 4)), allowed);
      }
    }
    return best_;
  }

 private:
  static double factor(int step) { return std::pow(0.875, step / 4.0); }
  Qparams range(const torch::Tensor& low, const torch::Tensor& high) const {
    const torch::Tensor scale =
        ((high - low) / static_cast<double>(grid_.max_code())).clamp(kMinScale, kMaxScale);
    return {scale, -low / scale};
  }
  /// Takes the candidate where it is better; returns where.
  torch::Tensor consider(const Qparams& candidate, const torch::Tensor& allowed) {
    const torch::Tensor error = group_errors(weight_, candidate, grid_, importance_);
    torch::Tensor better = error < error_;
    if (allowed.defined()) better = better & allowed;
    error_ = torch::where(better, error, error_);
    best_.scale = torch::where(better, candidate.scale, best_.scale);
    best_.zero_point = torch::where(better, candidate.zero_point, best_.zero_point);
    return better;
  }

  torch::Tensor weight_;  // [rows, cols]
  AffineGrid grid_;
  torch::Tensor importance_;  // [cols] or undefined
  torch::Tensor low_, high_;  // [rows, groups]
  torch::Tensor error_;       // [rows, groups] float64
  Qparams best_;
};

/// Inputs whose mean squares span three orders of magnitude.
torch::Tensor random_importance() {
  torch::manual_seed(9);
  return torch::exp(2.0 * torch::randn({kCols}));
}

TEST(ClipSearch, ReachesTheErrorOfThePlainSearchOnEveryGrid) {
  const torch::Tensor weight = random_weight(1);
  for (const AffineGrid& grid : all_grids()) {
    for (const torch::Tensor& importance : {torch::Tensor(), random_importance()}) {
      const torch::Tensor error =
          group_errors(weight, clip_search_qparams(weight, grid, importance), grid, importance);
      const torch::Tensor plain =
          group_errors(weight, PlainSearch(weight, grid, importance).run(), grid, importance);
      // Ties in float32 may send the two to neighbouring candidates, in few groups.
      const torch::Tensor same = (error - plain).abs() <= 1e-4 * plain + 1e-12;
      EXPECT_GT(same.to(torch::kFloat32).mean().item<float>(), 0.97f) << grid_name(grid);
      EXPECT_LE((error / (plain + 1e-12)).max().item<double>(), 1.1) << grid_name(grid);
    }
  }
}

TEST(ClipSearch, NoGroupIsWorseThanMinMax) {
  const torch::Tensor weight = random_weight(2);
  for (const AffineGrid& grid : all_grids()) {
    for (const torch::Tensor& importance : {torch::Tensor(), random_importance()}) {
      const torch::Tensor error =
          group_errors(weight, clip_search_qparams(weight, grid, importance), grid, importance);
      const torch::Tensor min_max =
          group_errors(weight, min_max_qparams(weight, grid), grid, importance);
      EXPECT_TRUE((error <= min_max * (1 + 1e-5) + 1e-12).all().item<bool>()) << grid_name(grid);
    }
  }
}

TEST(ClipSearch, AtTwoBitsItTakesAThirdOffTheErrorOfNormalWeights) {
  torch::manual_seed(3);
  const torch::Tensor weight = torch::randn({32, 512}) * 0.05;
  for (const bool symmetric : {false, true}) {
    const AffineGrid grid{.bits = 2, .group_size = 128, .symmetric = symmetric};
    const auto error = [&](const Qparams& qparams) {
      return group_errors(weight, qparams, grid, {}).sum().item<double>();
    };
    EXPECT_LT(error(clip_search_qparams(weight, grid, {})),
              0.67 * error(min_max_qparams(weight, grid)));
  }
}

TEST(ClipSearch, ImportanceMovesTheErrorToInputsThatCountLess) {
  const torch::Tensor weight = random_weight(4), importance = random_importance();
  const AffineGrid grid{.bits = 2, .group_size = 64};
  const Qparams plain = clip_search_qparams(weight, grid, {});
  const Qparams aware = clip_search_qparams(weight, grid, importance);
  const auto total = [&](const Qparams& qparams, const torch::Tensor& by) {
    return group_errors(weight, qparams, grid, by).slice(0, 5).sum().item<double>();
  };
  EXPECT_LT(total(aware, importance), 0.9 * total(plain, importance));
  EXPECT_GT(total(aware, {}), total(plain, {}));
}

TEST(ClipSearch, QparamsAreAlreadyAsStored) {
  const torch::Tensor weight = random_weight(5);
  for (const AffineGrid& grid : all_grids()) {
    const Qparams qparams = clip_search_qparams(weight, grid, {});
    EXPECT_TRUE(same_bits(effective_scale(qparams.scale), qparams.scale)) << grid_name(grid);
    EXPECT_TRUE(same_bits(effective_zero_point(qparams.zero_point, grid.bits), qparams.zero_point))
        << grid_name(grid);
    if (grid.symmetric) {
      EXPECT_TRUE((qparams.zero_point == std::exp2(grid.bits - 1)).all().item<bool>());
    }
  }
}

TEST(ClipSearch, AnyNumberOfThreadsGivesTheSameBytes) {
  const torch::Tensor weight = random_weight(6);
  const AffineGrid grid{.bits = 3, .group_size = 32};
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Qparams once = clip_search_qparams(weight, grid, random_importance());
  at::set_num_threads(3);
  const Qparams again = clip_search_qparams(weight, grid, random_importance());
  at::set_num_threads(threads);
  EXPECT_TRUE(same_bits(again.scale, once.scale));
  EXPECT_TRUE(same_bits(again.zero_point, once.zero_point));
}

}  // namespace
}  // namespace qaas
