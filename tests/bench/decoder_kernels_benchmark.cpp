#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include <benchmark/benchmark.h>

#include "workers/engine/kernels/decoder_kernels.h"

/// The decoder kernels at the size of one training step of a small model: 512 tokens (2 windows of
/// 256), hidden 288, intermediate 768, 6 heads of 48; one thread. Each beside a plain scalar loop.
namespace qaas::kernels {
namespace {

constexpr int64_t kTokens = 512, kHidden = 288, kIntermediate = 768, kHeads = 6, kWindow = 256;
constexpr int64_t kMatrices = kTokens / kWindow * kHeads;

std::vector<float> random_floats(int64_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& x : values) x = normal(random);
  return values;
}
template <class T>
std::vector<T> random_stored(int64_t count);
template <>
std::vector<float> random_stored<float>(int64_t count) {
  return random_floats(count);
}
template <>
std::vector<Bfloat16Bits> random_stored<Bfloat16Bits>(int64_t count) {
  std::vector<Bfloat16Bits> stored(count);
  convert(random_floats(count).data(), count, stored.data(), 1);
  return stored;
}

template <class T>
void rms_norm_forward_kernel(benchmark::State& state) {
  const auto x = random_floats(kTokens * kHidden), weight = random_floats(kHidden);
  std::vector<T> out(x.size());
  std::vector<float> inverse(kTokens);
  for (auto _ : state) {
    rms_norm_forward(kTokens, kHidden, x.data(), weight.data(), 1e-5f, out.data(), inverse.data(),
                     1);
    benchmark::ClobberMemory();
  }
}

template <class T>
void rms_norm_backward_kernel(benchmark::State& state) {
  const auto x = random_floats(kTokens * kHidden), weight = random_floats(kHidden);
  const auto grad = random_stored<T>(kTokens * kHidden);
  const std::vector<float> inverse(kTokens, 1.0f);
  std::vector<float> grad_x(x.size()), grad_weight(kHidden);
  for (auto _ : state) {
    rms_norm_backward(kTokens, kHidden, x.data(), weight.data(), inverse.data(), grad.data(),
                      x.data(), grad_x.data(), grad_weight.data(), 1);
    benchmark::ClobberMemory();
  }
}

template <class T>
void swiglu_forward_kernel(benchmark::State& state) {
  const auto both = random_stored<T>(kTokens * 2 * kIntermediate);
  std::vector<T> out(kTokens * kIntermediate);
  for (auto _ : state) {
    swiglu_forward(kTokens, kIntermediate, 2 * kIntermediate, both.data(),
                   both.data() + kIntermediate, out.data(), 1);
    benchmark::ClobberMemory();
  }
}

template <class T>
void swiglu_backward_kernel(benchmark::State& state) {
  const auto both = random_stored<T>(kTokens * 2 * kIntermediate);
  const auto grad = random_stored<T>(kTokens * kIntermediate);
  std::vector<T> out(both.size());
  for (auto _ : state) {
    swiglu_backward(kTokens, kIntermediate, 2 * kIntermediate, both.data(),
                    both.data() + kIntermediate, grad.data(), out.data(),
                    out.data() + kIntermediate, 1);
    benchmark::ClobberMemory();
  }
}

void swiglu_forward_scalar(benchmark::State& state) {
  const auto both = random_floats(kTokens * 2 * kIntermediate);
  std::vector<float> out(kTokens * kIntermediate);
  for (auto _ : state) {
    for (int64_t r = 0; r < kTokens; ++r) {
      for (int64_t c = 0; c < kIntermediate; ++c) {
        const float g = both[r * 2 * kIntermediate + c];
        const float u = both[(r * 2 + 1) * kIntermediate + c];
        out[r * kIntermediate + c] = g / (1 + std::exp(-g)) * u;
      }
    }
    benchmark::ClobberMemory();
  }
}

template <class T>
void softmax_causal_forward_kernel(benchmark::State& state) {
  const auto scores = random_stored<T>(kMatrices * kWindow * kWindow);
  std::vector<T> out(scores.size());
  for (auto _ : state) {
    softmax_causal_forward(kMatrices, kWindow, 0.14f, scores.data(), out.data(), 1);
    benchmark::ClobberMemory();
  }
}

template <class T>
void softmax_causal_backward_kernel(benchmark::State& state) {
  const auto scores = random_stored<T>(kMatrices * kWindow * kWindow);
  std::vector<T> out(scores.size());
  for (auto _ : state) {
    softmax_causal_backward(kMatrices, kWindow, 0.14f, scores.data(), scores.data(), out.data(), 1);
    benchmark::ClobberMemory();
  }
}

void softmax_causal_forward_scalar(benchmark::State& state) {
  const auto scores = random_floats(kMatrices * kWindow * kWindow);
  std::vector<float> out(scores.size());
  for (auto _ : state) {
    for (int64_t r = 0; r < kMatrices * kWindow; ++r) {
      const int64_t used = r % kWindow + 1;
      float top = -INFINITY, sum = 0;
      for (int64_t c = 0; c < used; ++c) top = std::max(top, 0.14f * scores[r * kWindow + c]);
      for (int64_t c = 0; c < used; ++c) {
        sum += out[r * kWindow + c] = std::exp(0.14f * scores[r * kWindow + c] - top);
      }
      for (int64_t c = 0; c < used; ++c) out[r * kWindow + c] /= sum;
      for (int64_t c = used; c < kWindow; ++c) out[r * kWindow + c] = 0;
    }
    benchmark::ClobberMemory();
  }
}

template <class T>
void rotate_heads_kernel(benchmark::State& state) {
  const auto x = random_stored<T>(kTokens * kHidden);
  const auto table = random_floats(kWindow * kHidden / kHeads / 2);
  std::vector<T> out(x.size());
  constexpr int64_t kHeadDim = kHidden / kHeads;
  for (auto _ : state) {
    rotate_heads({kTokens / kWindow, kWindow, kHeads, kHeadDim}, table.data(), table.data(),
                 Rotation::kForward, x.data(), {kWindow * kHidden, kHidden, kHeadDim}, out.data(),
                 {kWindow * kHidden, kHeadDim, kWindow * kHeadDim}, 1);
    benchmark::ClobberMemory();
  }
}

template <class T>
void cross_entropy_kernel(benchmark::State& state) {
  const int64_t vocabulary = 32000, rows = 64;
  auto logits = random_stored<T>(rows * vocabulary);
  std::vector<T> grad(logits.size());
  const std::vector<int64_t> targets(rows, 5);
  std::vector<float> losses(rows);
  for (auto _ : state) {
    cross_entropy(rows, vocabulary, logits.data(), targets.data(), 1e-3f, losses.data(),
                  grad.data(), 1);
    benchmark::ClobberMemory();
  }
}

BENCHMARK_TEMPLATE(rms_norm_forward_kernel, float)->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(rms_norm_forward_kernel, Bfloat16Bits)->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(rms_norm_backward_kernel, float)->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(rms_norm_backward_kernel, Bfloat16Bits)->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(swiglu_forward_kernel, float)->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(swiglu_forward_kernel, Bfloat16Bits)->Unit(benchmark::kMicrosecond);
BENCHMARK(swiglu_forward_scalar)->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(swiglu_backward_kernel, float)->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(swiglu_backward_kernel, Bfloat16Bits)->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(softmax_causal_forward_kernel, float)->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(softmax_causal_forward_kernel, Bfloat16Bits)->Unit(benchmark::kMicrosecond);
BENCHMARK(softmax_causal_forward_scalar)->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(softmax_causal_backward_kernel, float)->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(softmax_causal_backward_kernel, Bfloat16Bits)->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(rotate_heads_kernel, float)->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(rotate_heads_kernel, Bfloat16Bits)->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(cross_entropy_kernel, float)->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(cross_entropy_kernel, Bfloat16Bits)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace qaas::kernels

BENCHMARK_MAIN();
