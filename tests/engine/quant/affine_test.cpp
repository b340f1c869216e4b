#include "workers/engine/quant/affine.h"

#include "tests/engine/quant/grid_cases.h"
#include "tests/support/tensor_matchers.h"

namespace qaas {
namespace {

using testing::all_grids;
using testing::is_near;
using testing::kCols;
using testing::kRows;
using testing::random_state;
using testing::random_weight;
using testing::same_bits;
using testing::TrainedState;

constexpr int64_t kSeeds = 8;

class Affine : public ::testing::TestWithParam<AffineGrid> {
 protected:
  const AffineGrid& grid() const { return GetParam(); }
  /// [rows, groups] → [rows, cols]
  torch::Tensor per_weight(const torch::Tensor& qparam) const {
    return qparam.repeat_interleave(grid().group_size, 1);
  }
};

INSTANTIATE_TEST_SUITE_P(Grids, Affine, ::testing::ValuesIn(all_grids()),
                         [](const auto& info) { return testing::grid_name(info.param); });

TEST_P(Affine, MinMaxRangeContainsZero) {
  for (int64_t seed = 0; seed < kSeeds; ++seed) {
    const Qparams qparams = min_max_qparams(random_weight(seed), grid());
    EXPECT_GE(qparams.zero_point.min().item<float>(), 0);
    EXPECT_LE(qparams.zero_point.max().item<float>(), grid().max_code());
    EXPECT_TRUE(torch::equal(qparams.zero_point, torch::round(qparams.zero_point)));
    const torch::Tensor zeros = torch::zeros({kRows, kCols});
    EXPECT_TRUE(same_bits(fake_quantize_reference(zeros, qparams, grid()), zeros));
  }
}

TEST_P(Affine, MinMaxGridReachesEveryWeightWithinHalfAStep) {
  for (int64_t seed = 0; seed < kSeeds; ++seed) {
    const torch::Tensor weight = random_weight(seed).narrow(0, 5, kRows - 5).contiguous();
    const Qparams qparams = min_max_qparams(weight, grid());
    const torch::Tensor error = (fake_quantize_reference(weight, qparams, grid()) - weight).abs() /
                                per_weight(effective_scale(qparams.scale));
    // The zero point of an asymmetric grid is rounded, which may cost half a step at one end; the
    // scale is rounded to fp16, which moves the far end by at most 2^-11 of the range.
    const double rounded_ends = grid().symmetric ? 0.0 : 0.5;
    EXPECT_LE(error.max().item<double>(),
              0.5 + rounded_ends + std::ldexp(static_cast<double>(grid().max_code()), -11) + 1e-5);
  }
}

TEST_P(Affine, WeightsWithinTheRangeMoveAtMostHalfAScale) {
  for (int64_t seed = 0; seed < kSeeds; ++seed) {
    const TrainedState state = random_state(grid(), seed);
    const torch::Tensor scale =
        per_weight(effective_scale(state.qparams.scale)).to(torch::kFloat64);
    const torch::Tensor zero =
        per_weight(effective_zero_point(state.qparams.zero_point, grid().bits)).to(torch::kFloat64);
    const torch::Tensor weight = state.weight.to(torch::kFloat64);
    const torch::Tensor within =
        (weight >= -zero * scale) & (weight <= (grid().max_code() - zero) * scale);
    ASSERT_GT(within.sum().item<int64_t>(), kRows * kCols / 4);
    const torch::Tensor error =
        (fake_quantize_reference(state.weight, state.qparams, grid()).to(torch::kFloat64) - weight)
            .abs();
    EXPECT_LE((error / scale).masked_select(within).max().item<double>(), 0.5 + 1e-5);
  }
}

TEST_P(Affine, FusedFakeQuantizeEqualsTheReferenceBitForBit) {
  for (int64_t seed = 0; seed < kSeeds; ++seed) {
    const TrainedState state = random_state(grid(), seed);
    const torch::Tensor expected = fake_quantize_reference(state.weight, state.qparams, grid());
    EXPECT_TRUE(
        same_bits(fake_quantize(state.weight, state.qparams, grid(), torch::kFloat32), expected));
    EXPECT_TRUE(same_bits(fake_quantize(state.weight, state.qparams, grid(), torch::kBFloat16),
                          expected.to(torch::kBFloat16)));
  }
}

/// Gradients of Σ grad · fake_quantize in weight, scale and zero point, by either form.
struct Gradients {
  torch::Tensor weight, scale, zero_point;
};
template <class FakeQuantize>
Gradients gradients_of(const FakeQuantize& form, const TrainedState& state,
                       const torch::Tensor& grad) {
  const torch::Tensor weight = state.weight.clone().requires_grad_(true);
  const Qparams qparams{state.qparams.scale.clone().requires_grad_(true),
                        state.qparams.zero_point.clone().requires_grad_(true)};
  form(weight, qparams).backward(grad);
  return {weight.grad(), qparams.scale.grad(), qparams.zero_point.grad()};
}

TEST_P(Affine, FusedGradientsEqualThoseOfTheReference) {
  for (int64_t seed = 0; seed < kSeeds; ++seed) {
    const TrainedState state = random_state(grid(), seed);
    const torch::Tensor grad = torch::randn({kRows, kCols});
    const auto fused = gradients_of(
        [&](const auto& w, const auto& q) { return fake_quantize(w, q, grid(), torch::kFloat32); },
        state, grad);
    const auto reference = gradients_of(
        [&](const auto& w, const auto& q) { return fake_quantize_reference(w, q, grid()); }, state,
        grad);
    // Autograd gives grad · s / s, and sums grad · (code - z) and grad · w / s apart: they cancel.
    EXPECT_TRUE(is_near(fused.weight, reference.weight, 1e-6));
    const torch::Tensor size =
        (grad * state.weight / per_weight(effective_scale(state.qparams.scale))).abs() +
        grad.abs() * static_cast<double>(grid().max_code());
    const torch::Tensor limit = size.view({kRows, -1, grid().group_size}).sum(-1) * 1e-6;
    EXPECT_LE(((fused.scale - reference.scale).abs() / limit).max().item<float>(), 1);
    if (!grid().symmetric) {
      EXPECT_TRUE(is_near(fused.zero_point, reference.zero_point, 1e-5));
    }
  }
}

TEST_P(Affine, FusedGradientsEqualTheHandDerivedFormula) {
  for (int64_t seed = 0; seed < kSeeds; ++seed) {
    const TrainedState state = random_state(grid(), seed);
    const torch::Tensor grad = torch::randn({kRows, kCols});
    const auto fused = gradients_of(
        [&](const auto& w, const auto& q) { return fake_quantize(w, q, grid(), torch::kFloat32); },
        state, grad);
    const torch::Tensor scale = per_weight(effective_scale(state.qparams.scale));
    const torch::Tensor zero =
        per_weight(effective_zero_point(state.qparams.zero_point, grid().bits));
    const torch::Tensor steps = state.weight / scale;        // w / s, as it is rounded: float32
    const torch::Tensor level = torch::round(steps) + zero;  // u
    const torch::Tensor below = level<0, above = level> static_cast<double>(grid().max_code());
    const torch::Tensor g = grad.to(torch::kFloat64), s = scale.to(torch::kFloat64),
                        z = zero.to(torch::kFloat64);
    const auto summed = [&](const torch::Tensor& x) {
      return x.view({kRows, -1, grid().group_size}).sum(-1);
    };
    // EfficientQAT sheet 1.3: inside the range 1, round(w / s) - w / s, 0; below it 0, -z, -s;
    // above it 0, Q - z, -s.
    const torch::Tensor inside_scale = (torch::round(steps) - steps).to(torch::kFloat64);
    const torch::Tensor by_scale = torch::where(
        below, -z, torch::where(above, static_cast<double>(grid().max_code()) - z, inside_scale));
    const torch::Tensor by_zero = torch::where(below | above, -s, torch::zeros_like(s));
    EXPECT_TRUE(
        same_bits(fused.weight, torch::where(below | above, torch::zeros_like(grad), grad)));
    EXPECT_TRUE(is_near(fused.scale, summed(g * by_scale), 1e-5));
    if (!grid().symmetric) {
      EXPECT_TRUE(is_near(fused.zero_point, summed(g * by_zero), 1e-5));
    }
  }
}

TEST(SymmetricAffine, TheZeroPointIsTheMidPointAndHasNoGradient) {
  for (const AffineGrid& grid : all_grids()) {
    if (!grid.symmetric) continue;
    const TrainedState state = random_state(grid, 0);
    EXPECT_TRUE(same_bits(state.qparams.zero_point,
                          torch::full_like(state.qparams.zero_point,
                                           static_cast<double>(int64_t{1} << (grid.bits - 1)))));
    const auto fused = gradients_of(
        [&](const auto& w, const auto& q) { return fake_quantize(w, q, grid, torch::kFloat32); },
        state, torch::ones({kRows, kCols}));
    EXPECT_FALSE(fused.zero_point.defined());
  }
}

TEST(AffineQparams, ScalesAreClampedAndExactInFp16) {
  const torch::Tensor scale = torch::tensor({-1.0f, 0.0f, 1e-6f, 1e-4f, 0.0123456f, 9999.0f, 1e9f});
  const torch::Tensor used = effective_scale(scale);
  EXPECT_TRUE(same_bits(used.to(torch::kFloat16).to(torch::kFloat32), used));
  const torch::Tensor smallest = torch::tensor(1e-4f).to(torch::kFloat16).to(torch::kFloat32);
  for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(used[i].item<float>(), smallest.item<float>());
  EXPECT_NEAR(used[4].item<float>(), 0.0123456f, 0.0123456f / 2048);
  EXPECT_EQ(used[6].item<float>(), 10000.0f);
}

TEST(AffineQparams, ZeroPointsAreRoundedHalfToEvenAndClamped) {
  const torch::Tensor zero = torch::tensor({-3.7f, 0.5f, 1.5f, 2.5f, 2.4f, 99.0f});
  EXPECT_TRUE(same_bits(effective_zero_point(zero, 2),
                        torch::tensor({0.0f, 0.0f, 2.0f, 2.0f, 2.0f, 3.0f})));
}

TEST(AffineQparams, GroupsThatDoNotDivideTheInputsAreAProgrammingError) {
  EXPECT_THROW(min_max_qparams(torch::zeros({2, 96}), {.bits = 4, .group_size = 64}), c10::Error);
}

}  // namespace
}  // namespace qaas
