#include "workers/engine/train/clipped_range.h"

#include "tests/support/tensor_matchers.h"

namespace qaas {
namespace {

using testing::is_near;
using testing::same_bits;

constexpr int64_t kRows = 6, kCols = 64;

/// A projection whose grid is `shrink` of the weights' range.
FakeQuantProjection projection_on(const AffineGrid& grid, double shrink) {
  torch::manual_seed(5);
  torch::Tensor weight = torch::randn({kRows, kCols});
  weight[0].abs_();         // a row without negative weights
  weight[1].abs_().neg_();  // and one without positive ones
  Qparams qparams = min_max_qparams(weight, grid);
  qparams.scale = qparams.scale * shrink;
  return {weight, qparams, grid};
}

TEST(ClippedRange, StartsWhereTheInitialiserLeftTheGrid) {
  for (const bool symmetric : {false, true}) {
    for (const double shrink : {0.5, 1.0}) {
      const FakeQuantProjection projection =
          projection_on({.bits = 3, .group_size = 32, .symmetric = symmetric}, shrink);
      const torch::Tensor scale = effective_scale(projection.qparams().scale.detach()).clone();
      const torch::Tensor zero = projection.qparams().zero_point.detach().clone();
      ClippedRange range(projection);
      range.apply();
      EXPECT_TRUE(is_near(projection.qparams().scale, scale, 1e-5));
      EXPECT_TRUE(same_bits(effective_zero_point(projection.qparams().zero_point, 3), zero));
    }
  }
}

TEST(ClippedRange, FactorsStayBetweenNothingAndTheWeightsRange) {
  const FakeQuantProjection projection = projection_on({.bits = 3, .group_size = 32}, 0.5);
  ClippedRange range(projection);
  const torch::Tensor low = range.factors()[0], high = range.factors()[1];
  low.fill_(7);
  high.fill_(7);
  range.apply();
  const torch::Tensor full = min_max_qparams(projection.weight().detach(), projection.grid()).scale;
  EXPECT_TRUE(is_near(projection.qparams().scale, full, 1e-5));
  low.fill_(-7);
  high.fill_(-7);
  range.apply();
  EXPECT_TRUE(same_bits(low, torch::zeros_like(low)));
  EXPECT_TRUE(torch::isfinite(projection.qparams().zero_point).all().item<bool>());
}

// d loss / d factor by hand from s = (h·H - l·L) / Q and z = -l·L / s.
TEST(ClippedRange, GradientsFollowTheChainRule) {
  const AffineGrid grid{.bits = 2, .group_size = 32};
  const FakeQuantProjection projection = projection_on(grid, 0.8);
  ClippedRange range(projection);
  torch::Tensor scale = projection.qparams().scale, zero = projection.qparams().zero_point;
  const torch::Tensor of_scale = torch::randn_like(scale), of_zero = torch::randn_like(zero);
  scale.mutable_grad() = of_scale.clone();
  zero.mutable_grad() = of_zero.clone();
  torch::Tensor low = range.factors()[0], high = range.factors()[1];
  low.requires_grad_(true);
  high.requires_grad_(true);
  range.pull_gradients();
  EXPECT_FALSE(scale.grad().defined());
  EXPECT_FALSE(zero.grad().defined());

  const torch::NoGradGuard no_grad;
  const double levels = static_cast<double>(grid.max_code());
  const torch::Tensor s = effective_scale(scale.detach());
  const torch::Tensor low_at_one = -effective_zero_point(zero.detach(), 2) * s / low;  // L
  const torch::Tensor high_at_one =
      (levels - effective_zero_point(zero.detach(), 2)) * s / high;  // H
  const torch::Tensor z = -low * low_at_one / s;
  // dz/ds = -z / s; dz/dl at fixed s = -L / s.
  const torch::Tensor through_scale = of_scale - of_zero * z / s;
  const torch::Tensor of_low = through_scale * (-low_at_one / levels) - of_zero * low_at_one / s;
  const torch::Tensor of_high = through_scale * high_at_one / levels;
  const auto rows = torch::indexing::Slice(2, torch::indexing::None);  // both signs: no 0 / 0
  EXPECT_TRUE(is_near(low.grad().index({rows}), of_low.index({rows}), 1e-4));
  EXPECT_TRUE(is_near(high.grad().index({rows}), of_high.index({rows}), 1e-4));
}

}  // namespace
}  // namespace qaas
