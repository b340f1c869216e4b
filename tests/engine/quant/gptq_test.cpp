#include "workers/engine/quant/gptq.h"

#include <limits>
#include <numeric>

#include "tests/support/status_matchers.h"
#include "tests/support/tensor_matchers.h"

namespace qaas {
namespace {

using ::testing::HasSubstr;
using testing::is_near;
using testing::IsOk;
using testing::same_bits;
using testing::StatusIs;

constexpr int64_t kOut = 24, kIn = 96;

/// Inputs [tokens, cols] that share a few directions, as activations do.
torch::Tensor correlated_inputs(int64_t tokens, int64_t cols, int64_t seed) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  const torch::Tensor sizes = torch::exp(torch::randn({cols}));
  return (torch::randn({tokens, 12}).mm(torch::randn({12, cols})) + torch::randn({tokens, cols})) *
         sizes;
}

torch::Tensor hessian_of(const torch::Tensor& inputs) {
  HessianAccumulator accumulator(inputs.size(1));
  accumulator.add(inputs);
  return accumulator.hessian();
}

/// Σ over rows of Δ·H·Δᵀ: the squared error of the outputs, up to a factor.
double output_error(const torch::Tensor& weight, const torch::Tensor& quantized,
                    const torch::Tensor& hessian) {
  const torch::Tensor difference = (quantized - weight).to(torch::kFloat64);
  return (difference.mm(hessian.to(torch::kFloat64)) * difference).sum().item<double>();
}

/// GPTQ without blocks or factorizations, in double precision: the inverse Hessian itself, from
/// which each rounded column is eliminated (arXiv 2210.17323, equations 2 and 3).
torch::Tensor plain_gptq(const torch::Tensor& weight, const torch::Tensor& hessian,
                         const Qparams& qparams, const AffineGrid& grid, double damping,
                         const std::vector<int64_t>& order) {
  torch::Tensor matrix = hessian.to(torch::kFloat64).clone();
  matrix.diagonal().add_(damping * matrix.diagonal().mean());
  torch::Tensor inverse = torch::inverse(matrix);
  torch::Tensor left = weight.to(torch::kFloat64).clone(), result = torch::zeros_like(weight);
  for (const int64_t j : order) {
    const torch::Tensor now = left.to(torch::kFloat32);
    result.select(1, j).copy_(fake_quantize_reference(now, qparams, grid).select(1, j));
    const torch::Tensor error =
        (left.select(1, j) - result.select(1, j).to(torch::kFloat64)) / inverse[j][j];
    const torch::Tensor row = inverse[j].clone();
    left -= torch::outer(error, row);
    inverse -= torch::outer(row, row) / row[j];
  }
  return result;
}

class GptqTest : public ::testing::Test {
 protected:
  GptqTest() : hessian_(hessian_of(correlated_inputs(400, kIn, 1))) {
    torch::manual_seed(2);
    weight_ = torch::randn({kOut, kIn}) * 0.05;
  }
  torch::Tensor quantized(const AffineGrid& grid, const GptqOptions& options) const {
    const Qparams qparams = min_max_qparams(weight_, grid);
    const auto factor = factor_hessian(hessian_, options);
    EXPECT_THAT(factor, IsOk());
    return fake_quantize(gptq_weights(weight_, *factor, qparams, grid, options), qparams, grid,
                         torch::kFloat32);
  }

  torch::Tensor hessian_;  // [in, in]
  torch::Tensor weight_;   // [out, in]
};

TEST_F(GptqTest, EqualsThePlainAlgorithmForEveryBlockSize) {
  std::vector<int64_t> order(kIn);
  std::iota(order.begin(), order.end(), 0);
  for (const AffineGrid& grid :
       {AffineGrid{.bits = 2, .group_size = 32}, AffineGrid{.bits = 3, .group_size = 96},
        AffineGrid{.bits = 4, .group_size = 32, .symmetric = true}}) {
    const torch::Tensor plain =
        plain_gptq(weight_, hessian_, min_max_qparams(weight_, grid), grid, 0.01, order);
    for (const int64_t block : {1, 7, 32, 128}) {
      EXPECT_TRUE(same_bits(quantized(grid, {.block_columns = block}), plain)) << block;
    }
  }
}

TEST_F(GptqTest, ActivationOrderEqualsThePlainAlgorithmWithTheWeightsOwnGroups) {
  const AffineGrid grid{.bits = 3, .group_size = 32};
  const torch::Tensor sorted = torch::argsort(hessian_.diagonal(), 0, /*descending=*/true);
  const std::vector<int64_t> order(sorted.data_ptr<int64_t>(), sorted.data_ptr<int64_t>() + kIn);
  const torch::Tensor plain =
      plain_gptq(weight_, hessian_, min_max_qparams(weight_, grid), grid, 0.01, order);
  const torch::Tensor got = quantized(grid, {.activation_order = true, .block_columns = 20});
  EXPECT_TRUE(same_bits(got, plain));
  EXPECT_FALSE(torch::equal(got, quantized(grid, {})));
}

TEST_F(GptqTest, ErrorIsBelowNearestOnCorrelatedInputs) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const bool activation_order : {false, true}) {
      const AffineGrid grid{.bits = bits, .group_size = 32};
      const torch::Tensor nearest =
          fake_quantize(weight_, min_max_qparams(weight_, grid), grid, torch::kFloat32);
      EXPECT_LT(
          output_error(weight_, quantized(grid, {.activation_order = activation_order}), hessian_),
          0.5 * output_error(weight_, nearest, hessian_))
          << bits;
    }
  }
}

TEST_F(GptqTest, FirstColumnIsUntouchedAndLaterOnesAreCompensated) {
  const AffineGrid grid{.bits = 4, .group_size = 32};
  const auto factor = factor_hessian(hessian_, {});
  ASSERT_THAT(factor, IsOk());
  const torch::Tensor result =
      gptq_weights(weight_, *factor, min_max_qparams(weight_, grid), grid, {});
  EXPECT_TRUE(same_bits(result.select(1, 0), weight_.select(1, 0)));
  EXPECT_FALSE(torch::equal(result.select(1, kIn - 1), weight_.select(1, kIn - 1)));
}

TEST_F(GptqTest, InputsThatAreAlwaysZeroKeepTheirWeights) {
  torch::Tensor inputs = correlated_inputs(400, kIn, 1);
  inputs.select(1, 3).zero_();
  inputs.select(1, 40).zero_();
  const AffineGrid grid{.bits = 4, .group_size = 32};
  for (const bool activation_order : {false, true}) {
    const GptqOptions options{.activation_order = activation_order};
    const auto factor = factor_hessian(hessian_of(inputs), options);
    ASSERT_THAT(factor, IsOk());
    const torch::Tensor result =
        gptq_weights(weight_, *factor, min_max_qparams(weight_, grid), grid, options);
    for (const int64_t dead : {3, 40}) {
      EXPECT_TRUE(same_bits(result.select(1, dead), weight_.select(1, dead))) << dead;
    }
  }
}

TEST_F(GptqTest, WithoutAnyActivityTheWeightStaysAsItIs) {
  const AffineGrid grid{.bits = 4, .group_size = 32};
  const auto factor = factor_hessian(torch::zeros({kIn, kIn}), {});
  ASSERT_THAT(factor, IsOk());
  EXPECT_TRUE(
      same_bits(gptq_weights(weight_, *factor, min_max_qparams(weight_, grid), grid, {}), weight_));
}

TEST_F(GptqTest, FewerTokensThanInputsAreDampedUntilTheFactorExists) {
  const torch::Tensor singular = hessian_of(correlated_inputs(10, kIn, 5));
  const auto usual = factor_hessian(singular, {});
  ASSERT_THAT(usual, IsOk());
  EXPECT_EQ(usual->damping, 0.01);
  const auto raised = factor_hessian(singular, {.damping = 0});
  ASSERT_THAT(raised, IsOk());
  EXPECT_GT(raised->damping, 0);
}

TEST_F(GptqTest, UnusableHessiansAreErrors) {
  torch::Tensor broken = hessian_.clone();
  broken[4][5] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(factor_hessian(broken, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("calibration")));
  const torch::Tensor indefinite = torch::eye(kIn) - 200 * (1 - torch::eye(kIn));
  EXPECT_THAT(factor_hessian(indefinite, {}),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("not positive definite")));
}

TEST(HessianAccumulator, IsTwiceTheMeanOfTheOuterProducts) {
  constexpr int64_t kWide = 600;  // more than one panel
  const torch::Tensor inputs = correlated_inputs(50, kWide, 6).to(torch::kBFloat16);
  HessianAccumulator accumulator(kWide);
  for (const torch::Tensor& part : inputs.split(20)) accumulator.add(part);
  EXPECT_EQ(accumulator.tokens(), 50);
  const torch::Tensor wide = inputs.to(torch::kFloat64);
  EXPECT_TRUE(is_near(accumulator.hessian(), wide.t().mm(wide) * (2.0 / 50), 1e-6));
  EXPECT_TRUE(same_bits(accumulator.hessian(), accumulator.hessian().t().contiguous()));
}

}  // namespace
}  // namespace qaas
