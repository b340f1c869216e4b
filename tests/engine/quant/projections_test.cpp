#include "tests/engine/quant/grid_cases.h"
#include "tests/support/tensor_matchers.h"
#include "workers/engine/quant/bit_packing.h"
#include "workers/engine/quant/fake_quant_projection.h"
#include "workers/engine/quant/packed_projection.h"

namespace qaas {
namespace {

using testing::all_grids;
using testing::is_near;
using testing::kCols;
using testing::kRows;
using testing::random_state;
using testing::same_bits;
using testing::TrainedState;

constexpr int64_t kSeeds = 16;

class Projections : public ::testing::TestWithParam<AffineGrid> {
 protected:
  const AffineGrid& grid() const { return GetParam(); }
  FakeQuantProjection fake_quantized(int64_t seed) const {
    const TrainedState state = random_state(grid(), seed);
    return FakeQuantProjection(state.weight, state.qparams, grid());
  }
};

INSTANTIATE_TEST_SUITE_P(Grids, Projections, ::testing::ValuesIn(all_grids()),
                         [](const auto& info) { return testing::grid_name(info.param); });

/// scale · (code - zero_point) as quantized_weight.h defines it, one weight at a time.
torch::Tensor dequantized(const QuantizedWeight& weight) {
  const std::vector<uint8_t> codes =
      unpack_rows(weight.packed, weight.rows, weight.cols, weight.bits);
  torch::Tensor result = torch::empty({weight.rows, weight.cols});
  float* out = result.data_ptr<float>();
  for (int64_t i = 0; i < weight.rows * weight.cols; ++i) {
    const auto group = static_cast<size_t>(i / weight.group_size);
    out[i] = weight.scales[group] * static_cast<float>(static_cast<int>(codes[size_t(i)]) -
                                                       static_cast<int>(weight.zero_points[group]));
  }
  return result;
}

TEST_P(Projections, FakeQuantizedWeightEqualsTheDequantizedPackedWeight) {
  for (int64_t seed = 0; seed < kSeeds; ++seed) {
    FakeQuantProjection fake = fake_quantized(seed);
    const QuantizedWeight weight = fake.to_quantized_weight();
    PackedProjection packed(weight);
    EXPECT_TRUE(same_bits(fake.effective_weight(), dequantized(weight))) << "seed " << seed;
    EXPECT_TRUE(same_bits(packed.effective_weight(), dequantized(weight))) << "seed " << seed;
  }
}

TEST_P(Projections, OutputsOfBothFormsAreIdentical) {
  for (int64_t seed = 0; seed < kSeeds; ++seed) {
    FakeQuantProjection fake = fake_quantized(seed);
    PackedProjection packed(fake.to_quantized_weight());
    const torch::Tensor x = torch::randn({5, kCols});
    for (const auto compute : {torch::kFloat32, torch::kBFloat16}) {
      EXPECT_TRUE(same_bits(fake.forward(x.to(compute)), packed.forward(x.to(compute))))
          << "seed " << seed << " in " << compute;
    }
  }
}

TEST_P(Projections, WhatIsStoredIsWithinTheFormat) {
  const QuantizedWeight weight = fake_quantized(3).to_quantized_weight();
  EXPECT_EQ(weight.rows, kRows);
  EXPECT_EQ(weight.cols, kCols);
  EXPECT_EQ(weight.bits, grid().bits);
  EXPECT_EQ(weight.group_size, grid().group_size);
  EXPECT_EQ(weight.symmetric, grid().symmetric);
  for (const uint8_t zero : weight.zero_points) {
    EXPECT_LE(zero, grid().max_code());
    if (grid().symmetric) {
      EXPECT_EQ(zero, int64_t{1} << (grid().bits - 1));
    }
  }
  const torch::Tensor scales = torch::tensor(weight.scales);
  EXPECT_TRUE(same_bits(scales.to(torch::kFloat16).to(torch::kFloat32), scales));
}

TEST_P(Projections, ScaleGradientEqualsTheFormulaInDouble) {
  PackedProjection packed(fake_quantized(4).to_quantized_weight());
  packed.scale().set_requires_grad(true);
  const torch::Tensor x = torch::randn({24, kCols}).requires_grad_(true);
  const torch::Tensor grad = torch::randn({24, kRows});
  packed.forward(x).backward(grad);

  const QuantizedWeight weight = packed.to_quantized_weight();
  const std::vector<uint8_t> codes =
      unpack_rows(weight.packed, weight.rows, weight.cols, weight.bits);
  const torch::Tensor grad_weight =
      torch::mm(grad.to(torch::kFloat64).t(), x.detach().to(torch::kFloat64));  // [out, in]
  torch::Tensor expected = torch::zeros({kRows, kCols / grid().group_size}, torch::kFloat64);
  for (int64_t i = 0; i < kRows * kCols; ++i) {
    const int64_t group = i / grid().group_size;
    expected.data_ptr<double>()[group] +=
        grad_weight.data_ptr<double>()[i] *
        (static_cast<double>(codes[size_t(i)]) - weight.zero_points[size_t(group)]);
  }
  EXPECT_TRUE(is_near(packed.scale().grad(), expected, 1e-5));
  EXPECT_TRUE(is_near(x.grad(), torch::mm(grad, packed.effective_weight()), 1e-5));
}

TEST_P(Projections, Bf16ScaleGradientIsThatOfFloat32WithinItsPrecision) {
  const QuantizedWeight weight = fake_quantized(5).to_quantized_weight();
  const torch::Tensor x = torch::randn({24, kCols}), grad = torch::randn({24, kRows});
  const auto gradient = [&](torch::ScalarType compute) {
    PackedProjection packed(weight);
    packed.scale().set_requires_grad(true);
    packed.forward(x.to(compute)).backward(grad.to(compute));
    return packed.scale().grad();
  };
  EXPECT_TRUE(is_near(gradient(torch::kBFloat16), gradient(torch::kFloat32), 0.02));
}

TEST_P(Projections, TrainedScalesAreUsedAndStoredAsFp16) {
  const QuantizedWeight before = fake_quantized(6).to_quantized_weight();
  PackedProjection packed(before);
  {
    const torch::NoGradGuard no_grad;
    packed.scale().mul_(1.0007).add_(1e-6);
    packed.scale()[0].fill_(-1.0);
  }
  const QuantizedWeight after = packed.to_quantized_weight();
  EXPECT_EQ(after.packed, before.packed);
  EXPECT_EQ(after.zero_points, before.zero_points);
  EXPECT_NE(after.scales, before.scales);
  EXPECT_TRUE(
      same_bits(torch::tensor(after.scales), effective_scale(packed.scale().detach()).flatten()));
  EXPECT_TRUE(same_bits(packed.effective_weight(), dequantized(after)));
}

TEST(FakeQuantProjection, OnlyAnAsymmetricZeroPointTrains) {
  for (const bool symmetric : {false, true}) {
    const AffineGrid grid{.bits = 4, .group_size = 32, .symmetric = symmetric};
    const TrainedState state = random_state(grid, 0);
    const FakeQuantProjection fake(state.weight, state.qparams, grid);
    EXPECT_EQ(fake.quant_parameters().size(), symmetric ? 1u : 2u);
    EXPECT_EQ(fake.weight_parameters().size(), 1u);
  }
}

TEST(FakeQuantProjection, QparamsOfAnotherGroupSizeAreAProgrammingError) {
  const AffineGrid grid{.bits = 4, .group_size = 32};
  const TrainedState state = random_state(grid, 0);
  EXPECT_THROW(FakeQuantProjection(state.weight, state.qparams, {.bits = 4, .group_size = 64}),
               c10::Error);
}

}  // namespace
}  // namespace qaas
