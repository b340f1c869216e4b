#include "workers/engine/kernels/decoder_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

/// Each kernel against the same formula in double precision, in both storage types. Sizes are
/// chosen so that rows end inside a vector.
namespace qaas::kernels {
namespace {

template <class T>
std::vector<double> widen(const std::vector<T>& from) {
  std::vector<double> to;
  for (const T x : from) {
    if constexpr (std::is_same_v<T, float>) {
      to.push_back(x);
    } else {
      const uint32_t bits = static_cast<uint32_t>(x) << 16;
      float y;
      std::memcpy(&y, &bits, sizeof y);
      to.push_back(y);
    }
  }
  return to;
}

template <class T>
std::vector<T> narrow(const std::vector<float>& from) {
  if constexpr (std::is_same_v<T, float>) {
    return from;
  } else {
    std::vector<T> to(from.size());
    convert(from.data(), static_cast<int64_t>(from.size()), to.data(), 1);
    return to;
  }
}

template <class T>
class DecoderKernels : public testing::Test {
 protected:
  std::vector<float> random(int64_t count, float spread = 1) {
    std::normal_distribution<float> normal(0, spread);
    std::vector<float> values(count);
    for (float& x : values) x = normal(random_);
    return values;
  }
  std::vector<T> random_stored(int64_t count, float spread = 1) {
    return narrow<T>(random(count, spread));
  }
  /// One rounding to the storage type, plus `slack` for the fp32 arithmetic before it.
  void expect_near(const std::vector<T>& got, const std::vector<double>& want, double slack) {
    constexpr double kRounding = std::is_same_v<T, float> ? 1e-7 : 1.0 / 256;
    const std::vector<double> wide = widen(got);
    ASSERT_EQ(wide.size(), want.size());
    for (size_t i = 0; i < wide.size(); ++i) {
      ASSERT_NEAR(wide[i], want[i], kRounding * std::abs(want[i]) + slack) << i;
    }
  }

 private:
  std::mt19937 random_{7};
};

using StorageTypes = testing::Types<float, Bfloat16Bits>;
TYPED_TEST_SUITE(DecoderKernels, StorageTypes);

TYPED_TEST(DecoderKernels, RmsNormForwardFollowsTheFormula) {
  for (int64_t dim : {1, 15, 48, 288, 301}) {
    const int64_t rows = 7;
    const auto x = this->random(rows * dim, 3), weight = this->random(dim);
    std::vector<TypeParam> out(rows * dim);
    std::vector<float> inverse(rows);
    rms_norm_forward(rows, dim, x.data(), weight.data(), 1e-5f, out.data(), inverse.data(), 1);
    std::vector<double> want(rows * dim);
    for (int64_t r = 0; r < rows; ++r) {
      double squares = 0;
      for (int64_t c = 0; c < dim; ++c) squares += double{x[r * dim + c]} * x[r * dim + c];
      const double scale = 1 / std::sqrt(squares / static_cast<double>(dim) + 1e-5);
      EXPECT_NEAR(inverse[r], scale, 1e-6 * scale);
      for (int64_t c = 0; c < dim; ++c) want[r * dim + c] = x[r * dim + c] * scale * weight[c];
    }
    this->expect_near(out, want, 5e-6);
  }
}

TYPED_TEST(DecoderKernels, RmsNormBackwardFollowsTheFormulaAndAddsTheResidual) {
  for (int64_t dim : {15, 288, 301}) {
    const int64_t rows = 9;
    const auto x = this->random(rows * dim, 2), weight = this->random(dim);
    const auto grad = this->random_stored(rows * dim);
    const auto residual = this->random(rows * dim);
    std::vector<TypeParam> out(rows * dim);
    std::vector<float> inverse(rows), grad_x(rows * dim), grad_weight(dim);
    rms_norm_forward(rows, dim, x.data(), weight.data(), 1e-5f, out.data(), inverse.data(), 1);
    rms_norm_backward(rows, dim, x.data(), weight.data(), inverse.data(), grad.data(),
                      static_cast<const float*>(nullptr), grad_x.data(), grad_weight.data(), 1);
    const std::vector<double> d = widen(grad);
    std::vector<double> want_x(rows * dim), want_weight(dim);
    for (int64_t r = 0; r < rows; ++r) {
      double squares = 0, along = 0;
      for (int64_t c = 0; c < dim; ++c) {
        squares += double{x[r * dim + c]} * x[r * dim + c];
        along += d[r * dim + c] * weight[c] * x[r * dim + c];
      }
      const double n = static_cast<double>(dim);
      const double scale = 1 / std::sqrt(squares / n + 1e-5);
      for (int64_t c = 0; c < dim; ++c) {
        want_x[r * dim + c] =
            scale * d[r * dim + c] * weight[c] - scale * scale * scale / n * along * x[r * dim + c];
        want_weight[c] += d[r * dim + c] * x[r * dim + c] * scale;
      }
    }
    for (int64_t i = 0; i < rows * dim; ++i) ASSERT_NEAR(grad_x[i], want_x[i], 2e-5) << i;
    for (int64_t c = 0; c < dim; ++c) ASSERT_NEAR(grad_weight[c], want_weight[c], 2e-5) << c;

    std::vector<float> in_place = residual;
    rms_norm_backward(rows, dim, x.data(), weight.data(), inverse.data(), grad.data(),
                      in_place.data(), in_place.data(), grad_weight.data(), 1);
    for (int64_t i = 0; i < rows * dim; ++i) {
      ASSERT_EQ(in_place[i], grad_x[i] + residual[i]) << i;
    }
  }
}

TYPED_TEST(DecoderKernels, SwigluFollowsTheFormulaForwardAndBackward) {
  for (int64_t cols : {5, 768, 771}) {
    const int64_t rows = 3, stride = 2 * cols;
    auto both = this->random_stored(rows * stride, 4);  // gate and up side by side
    const auto grad = this->random_stored(rows * cols);
    std::vector<TypeParam> out(rows * cols);
    swiglu_forward(rows, cols, stride, both.data(), both.data() + cols, out.data(), 1);
    const std::vector<double> in = widen(both), d = widen(grad);
    std::vector<double> want(rows * cols), want_both(rows * stride);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const double g = in[r * stride + c], u = in[r * stride + cols + c];
        const double sigmoid = 1 / (1 + std::exp(-g));
        want[r * cols + c] = g * sigmoid * u;
        want_both[r * stride + c] = d[r * cols + c] * u * sigmoid * (1 + g * (1 - sigmoid));
        want_both[r * stride + cols + c] = d[r * cols + c] * g * sigmoid;
      }
    }
    this->expect_near(out, want, 2e-5);
    swiglu_backward(rows, cols, stride, both.data(), both.data() + cols, grad.data(), both.data(),
                    both.data() + cols, 1);
    this->expect_near(both, want_both, 2e-5);
  }
}

TYPED_TEST(DecoderKernels, SwigluOfExtremeGatesStaysFinite) {
  const std::vector<float> gates = {-1e4f, -200, -88, 88, 200, 1e4f};
  const auto gate = narrow<TypeParam>(gates);
  const auto one = narrow<TypeParam>(std::vector<float>(6, 1.0f));
  std::vector<TypeParam> out(6), grad_gate(6), grad_up(6);
  swiglu_forward(1, 6, 6, gate.data(), one.data(), out.data(), 1);
  swiglu_backward(1, 6, 6, gate.data(), one.data(), one.data(), grad_gate.data(), grad_up.data(),
                  1);
  const std::vector<double> stored = widen(gate);
  this->expect_near(out, {0, 0, 0, stored[3], stored[4], stored[5]}, 1e-30);
  this->expect_near(grad_gate, {0, 0, 0, 1, 1, 1}, 1e-30);
}

TYPED_TEST(DecoderKernels, CausalSoftmaxFollowsTheFormulaForwardAndBackward) {
  for (int64_t length : {1, 16, 37, 64}) {
    const int64_t matrices = 3;
    const float scale = 0.3f;
    const auto scores = this->random_stored(matrices * length * length, 20);
    const auto grad = this->random_stored(matrices * length * length);
    std::vector<TypeParam> probabilities = scores;  // in place
    softmax_causal_forward(matrices, length, scale, probabilities.data(), probabilities.data(), 1);
    const std::vector<double> s = widen(scores), d = widen(grad);
    std::vector<double> want(s.size());
    for (int64_t r = 0; r < matrices * length; ++r) {
      const int64_t used = r % length + 1, at = r * length;
      double top = -1e30, sum = 0;
      for (int64_t c = 0; c < used; ++c) top = std::max(top, double{scale} * s[at + c]);
      for (int64_t c = 0; c < used; ++c) sum += std::exp(double{scale} * s[at + c] - top);
      for (int64_t c = 0; c < used; ++c) {
        want[at + c] = std::exp(double{scale} * s[at + c] - top) / sum;
      }
    }
    this->expect_near(probabilities, want, 1e-6);

    const std::vector<double> p = widen(probabilities);
    std::vector<double> want_grad(s.size());
    for (int64_t r = 0; r < matrices * length; ++r) {
      const int64_t used = r % length + 1, at = r * length;
      double mean = 0;
      for (int64_t c = 0; c < used; ++c) mean += p[at + c] * d[at + c];
      for (int64_t c = 0; c < used; ++c) {
        want_grad[at + c] = scale * p[at + c] * (d[at + c] - mean);
      }
    }
    std::vector<TypeParam> grad_scores = grad;  // in place
    softmax_causal_backward(matrices, length, scale, probabilities.data(), grad_scores.data(),
                            grad_scores.data(), 1);
    this->expect_near(grad_scores, want_grad, 1e-6);
  }
}

TYPED_TEST(DecoderKernels, MaskedScoresNeverMatterEvenWhenNotFinite) {
  const int64_t length = 20;
  std::vector<float> scores(length * length, std::nanf(""));
  for (int64_t r = 0; r < length; ++r) {
    for (int64_t c = 0; c <= r; ++c) scores[r * length + c] = 0;
  }
  const auto stored = narrow<TypeParam>(scores);
  std::vector<TypeParam> probabilities(stored.size()), grad(stored.size());
  softmax_causal_forward(1, length, 1.0f, stored.data(), probabilities.data(), 1);
  softmax_causal_backward(1, length, 1.0f, probabilities.data(), stored.data(), grad.data(), 1);
  std::vector<double> want(length * length);
  for (int64_t r = 0; r < length; ++r) {
    for (int64_t c = 0; c <= r; ++c) want[r * length + c] = 1.0 / static_cast<double>(r + 1);
  }
  this->expect_near(probabilities, want, 1e-7);
  this->expect_near(grad, std::vector<double>(length * length), 0);
}

TYPED_TEST(DecoderKernels, RotationFollowsTheFormulaTransposesAndIsUndoneByItsBackward) {
  for (int64_t head_dim : {2, 48, 64}) {
    const HeadsShape shape{2, 5, 3, head_dim};
    const int64_t half = head_dim / 2, count = 2 * 5 * 3 * head_dim;
    std::vector<float> cosine(5 * half), sine(5 * half);
    for (int64_t i = 0; i < 5 * half; ++i) {
      cosine[i] = static_cast<float>(std::cos(0.37 * static_cast<double>(i)));
      sine[i] = static_cast<float>(std::sin(0.37 * static_cast<double>(i)));
    }
    const HeadStrides tokens{5 * 3 * head_dim, 3 * head_dim, head_dim};  // [b, p, h, d]
    const HeadStrides heads{5 * 3 * head_dim, head_dim, 5 * head_dim};   // [b, h, p, d]
    const auto x = this->random_stored(count);
    std::vector<TypeParam> rotated(count), back(count);
    rotate_heads(shape, cosine.data(), sine.data(), Rotation::kForward, x.data(), tokens,
                 rotated.data(), heads, 1);
    const std::vector<double> in = widen(x);
    std::vector<double> want(count);
    for (int64_t b = 0; b < 2; ++b) {
      for (int64_t p = 0; p < 5; ++p) {
        for (int64_t h = 0; h < 3; ++h) {
          const int64_t from = b * tokens.sequence + p * tokens.position + h * tokens.head;
          const int64_t to = b * heads.sequence + p * heads.position + h * heads.head;
          for (int64_t i = 0; i < half; ++i) {
            const double c = cosine[p * half + i], s = sine[p * half + i];
            want[to + i] = in[from + i] * c - in[from + half + i] * s;
            want[to + half + i] = in[from + half + i] * c + in[from + i] * s;
          }
        }
      }
    }
    this->expect_near(rotated, want, 1e-6);
    rotate_heads(shape, cosine.data(), sine.data(), Rotation::kBackward, rotated.data(), heads,
                 back.data(), tokens, 1);
    this->expect_near(back, in, std::is_same_v<TypeParam, float> ? 1e-6 : 0.03);
  }
}

TYPED_TEST(DecoderKernels, CrossEntropyAndItsGradientFollowTheFormula) {
  for (int64_t cols : {3, 64, 1001}) {
    const int64_t rows = 4;
    const float scale = 0.25f;
    auto logits = this->random_stored(rows * cols, 5);
    std::vector<int64_t> targets;
    for (int64_t r = 0; r < rows; ++r) targets.push_back((r * 977 + 2) % cols);
    const std::vector<double> x = widen(logits);
    std::vector<double> want(rows * cols);
    std::vector<float> losses(rows), losses_alone(rows);
    cross_entropy(rows, cols, logits.data(), targets.data(), scale, losses_alone.data(),
                  static_cast<TypeParam*>(nullptr), 1);
    cross_entropy(rows, cols, logits.data(), targets.data(), scale, losses.data(), logits.data(),
                  1);
    EXPECT_EQ(losses, losses_alone);
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (int64_t c = 0; c < cols; ++c) sum += std::exp(x[r * cols + c]);
      for (int64_t c = 0; c < cols; ++c) {
        const double p = std::exp(x[r * cols + c]) / sum;
        want[r * cols + c] = scale * (p - (c == targets[r] ? 1 : 0));
      }
      EXPECT_NEAR(losses[r], std::log(sum) - x[r * cols + targets[r]], 5e-6);
    }
    this->expect_near(logits, want, 1e-6);
  }
}

TYPED_TEST(DecoderKernels, ActivationsAndTheirGradientsFollowTheFormula) {
  const int64_t rows = 5;
  for (int64_t size : {2, 31, 64, 100}) {
    const ActivationGroups shape{.groups = rows, .size = size, .largest_level = 7, .clip = 0.5f};
    auto x = this->random_stored(rows * size, 3);
    std::fill(x.begin(), x.begin() + size, TypeParam{});  // a group of zeros
    const auto grad = this->random_stored(rows * size);
    std::vector<TypeParam> out(rows * size), grad_x(rows * size);
    std::vector<float> grad_clip(rows);
    quantize_activations(shape, x.data(), out.data(), 1);
    quantize_activations_backward(shape, x.data(), grad.data(), grad_x.data(), grad_clip.data(), 1);
    const std::vector<double> in = widen(x), d = widen(grad);
    std::vector<double> want(rows * size), want_grad = d, want_clip(rows);
    for (int64_t r = 1; r < rows; ++r) {
      double largest = 0;
      for (int64_t c = 0; c < size; ++c) largest = std::max(largest, std::abs(in[r * size + c]));
      const double scale = 0.5 * largest / 7;
      for (int64_t i = r * size; i < (r + 1) * size; ++i) {
        const double level = std::nearbyint(in[i] / scale);
        want[i] = std::clamp(level, -7.0, 7.0) * scale;
        if (std::abs(level) > 7) want_grad[i] = 0;
        const double slope =
            std::abs(level) > 7 ? std::copysign(7.0, level) : level - in[i] / scale;
        want_clip[r] += d[i] * slope * largest / 7;
      }
    }
    this->expect_near(out, want, 1e-6);
    this->expect_near(grad_x, want_grad, 0);
    for (int64_t r = 0; r < rows; ++r) EXPECT_NEAR(grad_clip[r], want_clip[r], 1e-4) << r;
  }
}

TYPED_TEST(DecoderKernels, ANotANumberAmongActivationsStaysOne) {
  const ActivationGroups shape{.groups = 1, .size = 20, .largest_level = 127};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float other : {0.0f, 1.0f, nan}) {
    std::vector<float> values(20, other);
    values[3] = nan;
    std::vector<TypeParam> out(20);
    quantize_activations(shape, narrow<TypeParam>(values).data(), out.data(), 1);
    EXPECT_TRUE(std::isnan(widen(out)[3])) << other;
  }
}

TYPED_TEST(DecoderKernels, ThreadCountDoesNotChangeAByte) {
  const int64_t rows = 300, dim = 288, length = 100;
  const auto x = this->random(rows * dim), weight = this->random(dim);
  const auto grad = this->random_stored(rows * dim);
  const auto scores = this->random_stored(3 * length * length);
  std::vector<std::vector<double>> results;
  for (int threads : {1, 2, 5}) {
    std::vector<TypeParam> out(rows * dim), gated(rows * dim / 2), soft(scores.size());
    std::vector<float> inverse(rows), grad_x(rows * dim), grad_weight(dim);
    rms_norm_forward(rows, dim, x.data(), weight.data(), 1e-5f, out.data(), inverse.data(),
                     threads);
    rms_norm_backward(rows, dim, x.data(), weight.data(), inverse.data(), grad.data(), x.data(),
                      grad_x.data(), grad_weight.data(), threads);
    swiglu_forward(rows, dim / 2, dim, grad.data(), grad.data() + dim / 2, gated.data(), threads);
    softmax_causal_forward(3, length, 0.5f, scores.data(), soft.data(), threads);
    std::vector<double> all = widen(out);
    for (const auto& part : {widen(gated), widen(soft), widen(grad_x), widen(grad_weight)}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    results.push_back(std::move(all));
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

}  // namespace
}  // namespace qaas::kernels
