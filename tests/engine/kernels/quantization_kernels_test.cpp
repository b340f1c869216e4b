#include "workers/engine/kernels/quantization_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qaas::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

float from_bf16(Bfloat16Bits x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float y;
  std::memcpy(&y, &bits, sizeof y);
  return y;
}

/// The nearest bf16 found by comparing distances to the two neighbours, in double precision.
Bfloat16Bits nearest_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const auto down = static_cast<Bfloat16Bits>(bits >> 16);
  const auto up = static_cast<Bfloat16Bits>(down + 1);
  const double to_down = std::abs(double{x} - double{from_bf16(down)});
  const double to_up = std::abs(double{from_bf16(up)} - double{x});
  if (to_down != to_up) return to_down < to_up ? down : up;
  return down % 2 == 0 ? down : up;
}

/// A random matrix with effective qparams; weights reach beyond both ends of the grid.
struct Problem {
  GroupedMatrix shape;
  std::vector<float> weight, scale, zero_point, grad;
  std::vector<Bfloat16Bits> grad_bf16;

  Problem(GroupedMatrix s, uint32_t seed) : shape(s) {
    std::mt19937 random(seed);
    const float max_code = static_cast<float>((1 << s.bits) - 1);
    std::uniform_real_distribution<float> scales(0.001f, 0.1f), zeros(0, max_code);
    std::normal_distribution<float> normal;
    const int64_t groups = s.rows * s.cols / s.group_size;
    std::vector<float> raw_scale(groups), raw_zero(groups);
    for (float& x : raw_scale) x = scales(random);
    for (float& x : raw_zero) x = zeros(random);
    scale.resize(groups);
    zero_point.resize(groups);
    effective_qparams(raw_scale.data(), raw_zero.data(), groups, s.bits, scale.data(),
                      zero_point.data());
    for (int64_t i = 0; i < s.rows * s.cols; ++i) {
      const int64_t g = i / s.group_size;
      float w = scale[g] * (max_code * (0.5f + 0.6f * normal(random)) - zero_point[g]);
      // Exact ties, where half to even and true division show.
      if (i % 7 == 0) w = scale[g] * (std::floor(w / scale[g]) + 0.5f);
      weight.push_back(w);
      grad.push_back(from_bf16(nearest_bf16(normal(random))));
      grad_bf16.push_back(nearest_bf16(grad.back()));
    }
  }
  int64_t size() const { return shape.rows * shape.cols; }
  int64_t groups() const { return size() / shape.group_size; }
  int64_t group_of(int64_t i) const { return i / shape.group_size; }
  float max_code() const { return static_cast<float>((1 << shape.bits) - 1); }
  /// round(w / s) + z before the clamp, by the standard library in the default rounding mode.
  float level(int64_t i) const {
    return std::nearbyint(weight[i] / scale[group_of(i)]) + zero_point[group_of(i)];
  }
  float code(int64_t i) const { return std::clamp(level(i), 0.0f, max_code()); }
  std::vector<uint32_t> packed() const {
    std::vector<uint32_t> words(size() * shape.bits / 32);
    for (int64_t i = 0; i < size(); ++i) {
      const uint64_t value = static_cast<uint64_t>(code(i)) << (i * shape.bits % 32);
      words[i * shape.bits / 32] |= static_cast<uint32_t>(value);
      if (value >> 32) words[i * shape.bits / 32 + 1] |= static_cast<uint32_t>(value >> 32);
    }
    return words;
  }
};

class EveryGrid : public testing::TestWithParam<GroupedMatrix> {
 protected:
  const Problem problem_{GetParam(), 1};
};

INSTANTIATE_TEST_SUITE_P(Shapes, EveryGrid, testing::ValuesIn([] {
                           std::vector<GroupedMatrix> shapes;
                           for (int bits : {2, 3, 4, 8}) {
                             for (int64_t group : {32, 64, 128, 256, 768})
                               shapes.push_back({24, 768, group, bits});
                             shapes.push_back({9, 288, 96, bits});
                             shapes.push_back({1, 32, 32, bits});
                           }
                           return shapes;
                         }()),
                         [](const auto& info) {
                           const GroupedMatrix& s = info.param;
                           return std::to_string(s.rows) + "x" + std::to_string(s.cols) + "_b" +
                                  std::to_string(s.bits) + "_g" + std::to_string(s.group_size);
                         });

TEST_P(EveryGrid, ForwardEqualsTheFormulaExactly) {
  std::vector<float> got(problem_.size());
  fake_quantize_forward(problem_.shape, problem_.weight.data(), problem_.scale.data(),
                        problem_.zero_point.data(), got.data(), 1);
  for (int64_t i = 0; i < problem_.size(); ++i) {
    const int64_t g = problem_.group_of(i);
    ASSERT_EQ(got[i], (problem_.code(i) - problem_.zero_point[g]) * problem_.scale[g]) << i;
  }
}

TEST_P(EveryGrid, Bf16ForwardRoundsTheProductOnce) {
  std::vector<Bfloat16Bits> got(problem_.size());
  fake_quantize_forward(problem_.shape, problem_.weight.data(), problem_.scale.data(),
                        problem_.zero_point.data(), got.data(), 1);
  for (int64_t i = 0; i < problem_.size(); ++i) {
    const int64_t g = problem_.group_of(i);
    const float exact = (problem_.code(i) - problem_.zero_point[g]) * problem_.scale[g];
    ASSERT_EQ(got[i], nearest_bf16(exact)) << i;
  }
}

TEST_P(EveryGrid, QuantizeGivesTheCodes) {
  std::vector<uint8_t> got(problem_.size());
  quantize(problem_.shape, problem_.weight.data(), problem_.scale.data(),
           problem_.zero_point.data(), got.data(), 1);
  for (int64_t i = 0; i < problem_.size(); ++i) ASSERT_EQ(got[i], problem_.code(i)) << i;
}

TEST_P(EveryGrid, PackedWeightEqualsFakeQuantizedWeight) {
  const std::vector<uint32_t> packed = problem_.packed();
  std::vector<float> fake(problem_.size()), unpacked(problem_.size());
  fake_quantize_forward(problem_.shape, problem_.weight.data(), problem_.scale.data(),
                        problem_.zero_point.data(), fake.data(), 1);
  unpack_dequantize(problem_.shape, packed.data(), problem_.scale.data(),
                    problem_.zero_point.data(), unpacked.data(), 1);
  EXPECT_EQ(std::memcmp(fake.data(), unpacked.data(), fake.size() * sizeof(float)), 0);

  std::vector<Bfloat16Bits> fake16(problem_.size()), unpacked16(problem_.size());
  fake_quantize_forward(problem_.shape, problem_.weight.data(), problem_.scale.data(),
                        problem_.zero_point.data(), fake16.data(), 1);
  unpack_dequantize(problem_.shape, packed.data(), problem_.scale.data(),
                    problem_.zero_point.data(), unpacked16.data(), 1);
  EXPECT_EQ(fake16, unpacked16);
}

TEST_P(EveryGrid, BackwardFollowsTheStraightThroughTable) {
  std::vector<float> grad_weight(problem_.size()), grad_scale(problem_.groups()),
      grad_zero(problem_.groups());
  fake_quantize_backward(problem_.shape, problem_.weight.data(), problem_.scale.data(),
                         problem_.zero_point.data(), problem_.grad.data(), grad_weight.data(),
                         grad_scale.data(), grad_zero.data(), 1);
  std::vector<double> scale_sum(problem_.groups()), zero_sum(problem_.groups()),
      magnitude(problem_.groups());
  for (int64_t i = 0; i < problem_.size(); ++i) {
    const int64_t g = problem_.group_of(i);
    const double s = problem_.scale[g], z = problem_.zero_point[g], d = problem_.grad[i];
    const float u = problem_.level(i);
    const float quotient = problem_.weight[i] / problem_.scale[g];
    const bool inside = u >= 0 && u <= problem_.max_code();
    ASSERT_EQ(grad_weight[i], inside ? problem_.grad[i] : 0.0f) << i;
    const double by_scale = inside  ? double{std::nearbyint(quotient)} - double{quotient}
                            : u < 0 ? -z
                                    : problem_.max_code() - z;
    scale_sum[g] += d * by_scale;
    magnitude[g] += std::abs(d * by_scale);
    if (!inside) zero_sum[g] += -s * d;
  }
  for (int64_t g = 0; g < problem_.groups(); ++g) {
    EXPECT_NEAR(grad_scale[g], scale_sum[g], 1e-6 * magnitude[g] + 1e-7) << g;
    EXPECT_NEAR(grad_zero[g], zero_sum[g], 1e-5 * problem_.scale[g] * problem_.shape.group_size)
        << g;
  }
}

TEST_P(EveryGrid, Bf16GradientsGiveWhatTheSameValuesInFp32Give) {
  std::vector<float> a(problem_.size()), b(problem_.size());
  std::vector<float> sa(problem_.groups()), sb(sa), za(sa), zb(sa);
  fake_quantize_backward(problem_.shape, problem_.weight.data(), problem_.scale.data(),
                         problem_.zero_point.data(), problem_.grad.data(), a.data(), sa.data(),
                         za.data(), 1);
  fake_quantize_backward(problem_.shape, problem_.weight.data(), problem_.scale.data(),
                         problem_.zero_point.data(), problem_.grad_bf16.data(), b.data(), sb.data(),
                         zb.data(), 1);
  EXPECT_EQ(a, b);
  EXPECT_EQ(sa, sb);
  EXPECT_EQ(za, zb);
}

TEST_P(EveryGrid, NoZeroPointGradientChangesNothingElse) {
  std::vector<float> a(problem_.size()), b(problem_.size());
  std::vector<float> sa(problem_.groups()), sb(sa), za(sa);
  fake_quantize_backward(problem_.shape, problem_.weight.data(), problem_.scale.data(),
                         problem_.zero_point.data(), problem_.grad.data(), a.data(), sa.data(),
                         za.data(), 1);
  fake_quantize_backward(problem_.shape, problem_.weight.data(), problem_.scale.data(),
                         problem_.zero_point.data(), problem_.grad.data(), b.data(), sb.data(),
                         nullptr, 1);
  EXPECT_EQ(a, b);
  EXPECT_EQ(sa, sb);
}

TEST_P(EveryGrid, PackedScaleGradientIsTheSumOverTheGroup) {
  const std::vector<uint32_t> packed = problem_.packed();
  std::vector<float> got(problem_.groups()), got16(problem_.groups());
  packed_scale_gradient(problem_.shape, packed.data(), problem_.zero_point.data(),
                        problem_.grad.data(), got.data(), 1);
  packed_scale_gradient(problem_.shape, packed.data(), problem_.zero_point.data(),
                        problem_.grad_bf16.data(), got16.data(), 1);
  std::vector<double> want(problem_.groups()), magnitude(problem_.groups());
  for (int64_t i = 0; i < problem_.size(); ++i) {
    const int64_t g = problem_.group_of(i);
    const double term =
        double{problem_.grad[i]} * double{problem_.code(i) - problem_.zero_point[g]};
    want[g] += term;
    magnitude[g] += std::abs(term);
  }
  for (int64_t g = 0; g < problem_.groups(); ++g) {
    EXPECT_NEAR(got[g], want[g], 1e-6 * magnitude[g] + 1e-7) << g;
  }
  EXPECT_EQ(got, got16);
}

TEST_P(EveryGrid, PackedZeroPointGradientIsMinusTheScaleTimesTheSumOverTheGroup) {
  std::vector<float> got(problem_.groups()), got16(problem_.groups());
  packed_zero_point_gradient(problem_.shape, problem_.scale.data(), problem_.grad.data(),
                             got.data(), 1);
  packed_zero_point_gradient(problem_.shape, problem_.scale.data(), problem_.grad_bf16.data(),
                             got16.data(), 1);
  std::vector<double> want(problem_.groups()), magnitude(problem_.groups());
  for (int64_t i = 0; i < problem_.size(); ++i) {
    const int64_t g = problem_.group_of(i);
    const double term = -double{problem_.scale[g]} * double{problem_.grad[i]};
    want[g] += term;
    magnitude[g] += std::abs(term);
  }
  for (int64_t g = 0; g < problem_.groups(); ++g) {
    EXPECT_NEAR(got[g], want[g], 1e-6 * magnitude[g] + 1e-7) << g;
  }
  EXPECT_EQ(got, got16);
}

TEST(QuantizationKernels, SumOfSquaresIsThatOfDoublesWhateverTheThreads) {
  std::vector<float> values(100001);
  double want = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = 1e-3f * static_cast<float>(i % 977) - 0.4f;
    want += double{values[i]} * double{values[i]};
  }
  const auto sum = [&](int threads) {
    return sum_of_squares(values.data(), static_cast<int64_t>(values.size()), threads);
  };
  EXPECT_NEAR(sum(1), want, 1e-5 * want);
  for (const int threads : {2, 3, 8}) EXPECT_EQ(sum(threads), sum(1));
  values[70000] = NAN;
  EXPECT_FALSE(std::isfinite(sum(1)));
  EXPECT_EQ(sum_of_squares(values.data(), 0, 1), 0);
}

TEST(QuantizationKernels, ThreadCountDoesNotChangeAByte) {
  const Problem problem({512, 288, 96, 3}, 5);
  const std::vector<uint32_t> packed = problem.packed();
  std::vector<std::vector<float>> results;
  for (int threads : {1, 2, 3, 8}) {
    std::vector<float> all;
    std::vector<float> forward(problem.size()), backward(problem.size()), scale(problem.groups()),
        zero(problem.groups()), packed_scale(problem.groups());
    fake_quantize_forward(problem.shape, problem.weight.data(), problem.scale.data(),
                          problem.zero_point.data(), forward.data(), threads);
    fake_quantize_backward(problem.shape, problem.weight.data(), problem.scale.data(),
                           problem.zero_point.data(), problem.grad.data(), backward.data(),
                           scale.data(), zero.data(), threads);
    packed_scale_gradient(problem.shape, packed.data(), problem.zero_point.data(),
                          problem.grad.data(), packed_scale.data(), threads);
    std::vector<float> parameter = problem.weight, first(problem.size()), second(problem.size());
    adamw_step({.learning_rate = 1e-3f, .step = 3}, problem.size(), parameter.data(),
               problem.grad.data(), first.data(), second.data(), threads);
    for (const auto* part : {&forward, &backward, &scale, &zero, &packed_scale, &parameter}) {
      all.insert(all.end(), part->begin(), part->end());
    }
    results.push_back(std::move(all));
  }
  for (size_t i = 1; i < results.size(); ++i) EXPECT_EQ(results[0], results[i]);
}

TEST(QuantizationKernels, GroupsNeedNotBeMultiplesOfAVector) {
  const Problem problem({3, 100, 50, 4}, 2);
  std::vector<float> got(problem.size()), grad(problem.size()), scale(problem.groups()),
      zero(problem.groups());
  fake_quantize_forward(problem.shape, problem.weight.data(), problem.scale.data(),
                        problem.zero_point.data(), got.data(), 1);
  fake_quantize_backward(problem.shape, problem.weight.data(), problem.scale.data(),
                         problem.zero_point.data(), problem.grad.data(), grad.data(), scale.data(),
                         zero.data(), 1);
  std::vector<double> zero_want(problem.groups());
  for (int64_t i = 0; i < problem.size(); ++i) {
    const int64_t g = problem.group_of(i);
    ASSERT_EQ(got[i], (problem.code(i) - problem.zero_point[g]) * problem.scale[g]) << i;
    const bool inside = problem.level(i) == problem.code(i);
    ASSERT_EQ(grad[i], inside ? problem.grad[i] : 0.0f) << i;
    if (!inside) zero_want[g] -= double{problem.scale[g]} * problem.grad[i];
  }
  for (int64_t g = 0; g < problem.groups(); ++g) EXPECT_NEAR(zero[g], zero_want[g], 1e-5) << g;
}

TEST(QuantizationKernels, InfiniteWeightsSaturateAndNanWeightsStayVisible) {
  std::vector<float> weight(32, 0.0f);
  weight[0] = kInfinity;
  weight[1] = -kInfinity;
  weight[2] = kNan;
  weight[3] = 3e38f;
  const float scale = 0.5f, zero = 1.0f;
  std::vector<float> got(32);
  std::vector<Bfloat16Bits> got16(32);
  fake_quantize_forward({1, 32, 32, 2}, weight.data(), &scale, &zero, got.data(), 1);
  fake_quantize_forward({1, 32, 32, 2}, weight.data(), &scale, &zero, got16.data(), 1);
  EXPECT_EQ(got[0], 1.0f);
  EXPECT_EQ(got[1], -0.5f);
  EXPECT_TRUE(std::isnan(got[2]));
  EXPECT_EQ(got[3], 1.0f);
  EXPECT_TRUE(std::isnan(from_bf16(got16[2])));
}

TEST(EffectiveQparams, ClampsAndRoundsAsStored) {
  const std::vector<float> scale = {
      0.0f, -1.0f, 1e-4f, 1e9f, 1.0f + 1.0f / 2048, 1.0f + 3.0f / 2048, 0.1f, kNan, 0.3f, 0.7f};
  const std::vector<float> zero = {-3.0f, 0.5f,  1.5f,      2.5f,  9.0f,
                                   -0.2f, 1e20f, kInfinity, 2.49f, -1e20f};
  std::vector<float> s(scale.size()), z(scale.size());
  effective_qparams(scale.data(), zero.data(), static_cast<int64_t>(scale.size()), 2, s.data(),
                    z.data());
  constexpr float kTenThousandth = 0.00010001659393310547f;  // fp16 nearest to 1e-4
  EXPECT_EQ(s[0], kTenThousandth);
  EXPECT_EQ(s[1], kTenThousandth);
  EXPECT_EQ(s[2], kTenThousandth);
  EXPECT_EQ(s[3], 10000.0f);
  EXPECT_EQ(s[4], 1.0f);                // a tie goes to the even neighbour below
  EXPECT_EQ(s[5], 1.0f + 2.0f / 1024);  // and here above
  EXPECT_EQ(s[6], 0.0999755859375f);
  EXPECT_TRUE(std::isnan(s[7]));
  EXPECT_THAT(z, testing::ElementsAre(0, 0, 2, 2, 3, 0, 3, 3, 2, 0));
  EXPECT_FALSE(std::signbit(z[5]));
}

TEST(AdamWStep, FollowsTheFormulaOverManySteps) {
  constexpr int64_t kCount = 1003;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> parameter(kCount), first(kCount), second(kCount), gradient(kCount);
  for (float& x : parameter) x = normal(random);
  std::vector<double> p(parameter.begin(), parameter.end()), m(kCount), v(kCount);
  AdamW options{.learning_rate = 1e-2f, .weight_decay = 0.1f};
  for (options.step = 1; options.step <= 20; ++options.step) {
    for (float& x : gradient) x = normal(random);
    adamw_step(options, kCount, parameter.data(), gradient.data(), first.data(), second.data(), 1);
    const double t = static_cast<double>(options.step);
    for (int64_t i = 0; i < kCount; ++i) {
      const double g = gradient[i];
      p[i] *= 1 - double{options.learning_rate} * options.weight_decay;
      m[i] = options.beta1 * m[i] + (1 - double{options.beta1}) * g;
      v[i] = options.beta2 * v[i] + (1 - double{options.beta2}) * g * g;
      const double m_hat = m[i] / (1 - std::pow(double{options.beta1}, t));
      const double v_hat = v[i] / (1 - std::pow(double{options.beta2}, t));
      p[i] -= options.learning_rate * m_hat / (std::sqrt(v_hat) + options.epsilon);
    }
  }
  for (int64_t i = 0; i < kCount; ++i) EXPECT_NEAR(parameter[i], p[i], 2e-6) << i;
}

TEST(Convert, Bf16RoundsToTheNearestAndBack) {
  std::mt19937 random(4);
  std::vector<float> from;
  while (from.size() < 100'003) {
    const uint32_t bits = static_cast<uint32_t>(random());
    float x;
    std::memcpy(&x, &bits, sizeof x);
    if (std::abs(x) < 3e38f) from.push_back(x);
    const uint32_t tie = (bits & 0xffff0000u) | 0x8000u;
    std::memcpy(&x, &tie, sizeof x);
    if (std::abs(x) < 3e38f) from.push_back(x);
  }
  std::vector<Bfloat16Bits> half(from.size());
  convert(from.data(), static_cast<int64_t>(from.size()), half.data(), 1);
  for (size_t i = 0; i < from.size(); ++i) ASSERT_EQ(half[i], nearest_bf16(from[i])) << from[i];
  std::vector<float> back(from.size());
  convert(half.data(), static_cast<int64_t>(half.size()), back.data(), 1);
  for (size_t i = 0; i < from.size(); ++i) ASSERT_EQ(back[i], from_bf16(half[i])) << i;
}

TEST(Convert, NanStaysNanAndHugeValuesBecomeInfinite) {
  const std::vector<float> from = {kNan, -kNan, kInfinity, 3.4e38f, std::nanf("1")};
  std::vector<Bfloat16Bits> half(from.size());
  convert(from.data(), 5, half.data(), 1);
  EXPECT_TRUE(std::isnan(from_bf16(half[0])));
  EXPECT_TRUE(std::isnan(from_bf16(half[1])));
  EXPECT_EQ(from_bf16(half[2]), kInfinity);
  EXPECT_EQ(from_bf16(half[3]), kInfinity);
  EXPECT_TRUE(std::isnan(from_bf16(half[4])));
}

}  // namespace
}  // namespace qaas::kernels
