#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include <benchmark/benchmark.h>

#include "workers/engine/kernels/quantization_kernels.h"

/// Each kernel beside a plain scalar loop of the same formula and a memcpy of the same number of
/// bytes, in one run: compare within a run only. Counter "bytes_per_second" counts bytes read and
/// written. Shapes: the projections of a small model (768x288, 256x768, groups of 32) and one of a
/// 7B model (4096x4096, groups of 64).
namespace qaas::kernels {
namespace {

struct Workload {
  GroupedMatrix shape;
  std::vector<float> weight, grad, scale, zero_point, out, grad_scale, grad_zero_point;
  std::vector<Bfloat16Bits> grad_bf16, out_bf16;
  std::vector<uint32_t> packed;

  explicit Workload(const benchmark::State& state)
      : shape{state.range(0), state.range(1), state.range(2), 2} {
    const int64_t n = shape.rows * shape.cols;
    const int64_t groups = n / shape.group_size;
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.04f);
    for (int64_t i = 0; i < n; ++i) weight.push_back(normal(random));
    grad = weight;
    scale.assign(groups, 0.03f);
    zero_point.assign(groups, 1.0f);
    out.resize(n);
    grad_scale.resize(groups);
    grad_zero_point.resize(groups);
    grad_bf16.resize(n);
    out_bf16.resize(n);
    convert(grad.data(), n, grad_bf16.data(), 1);
    packed.resize(n / 16);
    for (uint32_t& word : packed) word = static_cast<uint32_t>(random());
  }
  int64_t size() const { return shape.rows * shape.cols; }
};

/// Bytes of one pass over a matrix: `per_weight` in and out, qparams left out as too few to matter.
void report(benchmark::State& state, const Workload& work, double per_weight) {
  state.SetBytesProcessed(static_cast<int64_t>(static_cast<double>(state.iterations()) *
                                               static_cast<double>(work.size()) * per_weight));
  state.counters["weights/s"] = benchmark::Counter(
      static_cast<double>(state.iterations() * work.size()), benchmark::Counter::kIsRate);
}

/// Copies `copied` bytes a weight: as many read as written, so bytes_per_second is comparable.
void memcpy_same_bytes(benchmark::State& state, double per_weight) {
  Workload work(state);
  const auto copied = static_cast<size_t>(static_cast<double>(work.size()) * per_weight / 2);
  std::vector<std::byte> from(copied), to(copied);
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), copied);
    benchmark::DoNotOptimize(to.data());
    benchmark::ClobberMemory();
  }
  report(state, work, per_weight);
}

// --- fake-quantize forward to bf16: 4 bytes in, 2 out

void forward_bf16(benchmark::State& state) {
  Workload w(state);
  for (auto _ : state) {
    fake_quantize_forward(w.shape, w.weight.data(), w.scale.data(), w.zero_point.data(),
                          w.out_bf16.data(), 1);
    benchmark::ClobberMemory();
  }
  report(state, w, 6);
}

void forward_scalar(benchmark::State& state) {
  Workload w(state);
  const float q = 3;
  for (auto _ : state) {
    for (int64_t i = 0; i < w.size(); ++i) {
      const int64_t g = i / w.shape.group_size;
      const float s = w.scale[g], z = w.zero_point[g];
      w.out[i] = (std::clamp(std::nearbyint(w.weight[i] / s) + z, 0.0f, q) - z) * s;
    }
    benchmark::ClobberMemory();
  }
  report(state, w, 8);
}

void forward_f32(benchmark::State& state) {
  Workload w(state);
  for (auto _ : state) {
    fake_quantize_forward(w.shape, w.weight.data(), w.scale.data(), w.zero_point.data(),
                          w.out.data(), 1);
    benchmark::ClobberMemory();
  }
  report(state, w, 8);
}

// --- fake-quantize backward: 4 + 4 (or 2) bytes in, 4 out

void backward_f32(benchmark::State& state) {
  Workload w(state);
  for (auto _ : state) {
    fake_quantize_backward(w.shape, w.weight.data(), w.scale.data(), w.zero_point.data(),
                           w.grad.data(), w.out.data(), w.grad_scale.data(),
                           w.grad_zero_point.data(), 1);
    benchmark::ClobberMemory();
  }
  report(state, w, 12);
}

void backward_bf16(benchmark::State& state) {
  Workload w(state);
  for (auto _ : state) {
    fake_quantize_backward(w.shape, w.weight.data(), w.scale.data(), w.zero_point.data(),
                           w.grad_bf16.data(), w.out.data(), w.grad_scale.data(),
                           w.grad_zero_point.data(), 1);
    benchmark::ClobberMemory();
  }
  report(state, w, 10);
}

void backward_scalar(benchmark::State& state) {
  Workload w(state);
  const float q = 3;
  for (auto _ : state) {
    std::fill(w.grad_scale.begin(), w.grad_scale.end(), 0.0f);
    std::fill(w.grad_zero_point.begin(), w.grad_zero_point.end(), 0.0f);
    for (int64_t i = 0; i < w.size(); ++i) {
      const int64_t g = i / w.shape.group_size;
      const float s = w.scale[g], z = w.zero_point[g], x = w.weight[i] / s;
      const float r = std::nearbyint(x), u = r + z, d = w.grad[i];
      const bool inside = u >= 0 && u <= q;
      w.out[i] = inside ? d : 0.0f;
      w.grad_scale[g] += d * (inside ? r - x : u < 0 ? -z : q - z);
      if (!inside) w.grad_zero_point[g] -= s * d;
    }
    benchmark::ClobberMemory();
  }
  report(state, w, 12);
}

// --- unpack 2-bit codes to bf16: 1/4 byte in, 2 out

void unpack_bf16(benchmark::State& state) {
  Workload w(state);
  for (auto _ : state) {
    unpack_dequantize(w.shape, w.packed.data(), w.scale.data(), w.zero_point.data(),
                      w.out_bf16.data(), 1);
    benchmark::ClobberMemory();
  }
  report(state, w, 2.25);
}

void unpack_scalar(benchmark::State& state) {
  Workload w(state);
  for (auto _ : state) {
    for (int64_t i = 0; i < w.size(); ++i) {
      const int64_t g = i / w.shape.group_size;
      const auto code = static_cast<float>(w.packed[i / 16] >> (2 * (i % 16)) & 3u);
      w.out[i] = (code - w.zero_point[g]) * w.scale[g];
    }
    benchmark::ClobberMemory();
  }
  report(state, w, 4.25);
}

// --- scale gradient of a packed projection: 4.25 bytes in

void scale_gradient_f32(benchmark::State& state) {
  Workload w(state);
  for (auto _ : state) {
    packed_scale_gradient(w.shape, w.packed.data(), w.zero_point.data(), w.grad.data(),
                          w.grad_scale.data(), 1);
    benchmark::ClobberMemory();
  }
  report(state, w, 4.25);
}

void scale_gradient_scalar(benchmark::State& state) {
  Workload w(state);
  for (auto _ : state) {
    std::fill(w.grad_scale.begin(), w.grad_scale.end(), 0.0f);
    for (int64_t i = 0; i < w.size(); ++i) {
      const int64_t g = i / w.shape.group_size;
      const auto code = static_cast<float>(w.packed[i / 16] >> (2 * (i % 16)) & 3u);
      w.grad_scale[g] += w.grad[i] * (code - w.zero_point[g]);
    }
    benchmark::ClobberMemory();
  }
  report(state, w, 4.25);
}

// --- AdamW: 16 bytes in, 12 out

void adamw(benchmark::State& state) {
  Workload w(state);
  std::vector<float> first(w.size()), second(w.size());
  AdamW options{.learning_rate = 1e-5f};
  for (auto _ : state) {
    adamw_step(options, w.size(), w.weight.data(), w.grad.data(), first.data(), second.data(), 1);
    ++options.step;
    benchmark::ClobberMemory();
  }
  report(state, w, 28);
}

void adamw_scalar(benchmark::State& state) {
  Workload w(state);
  std::vector<float> first(w.size()), second(w.size());
  double step = 1;
  for (auto _ : state) {
    const auto correction = static_cast<float>(std::sqrt(1 - std::pow(0.999, step)));
    const auto size = static_cast<float>(1e-5 / (1 - std::pow(0.9, step)));
    for (int64_t i = 0; i < w.size(); ++i) {
      first[i] = first[i] * 0.9f + w.grad[i] * 0.1f;
      second[i] = second[i] * 0.999f + w.grad[i] * w.grad[i] * 0.001f;
      w.weight[i] -= size * first[i] / (std::sqrt(second[i]) / correction + 1e-8f);
    }
    ++step;
    benchmark::ClobberMemory();
  }
  report(state, w, 28);
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "cols", "group"})
      ->Args({768, 288, 32})
      ->Args({256, 768, 32})
      ->Args({4096, 4096, 64})
      ->Unit(benchmark::kMicrosecond);
}

BENCHMARK(forward_f32)->Apply(shapes);
BENCHMARK(forward_scalar)->Apply(shapes);
BENCHMARK_CAPTURE(memcpy_same_bytes, forward_f32, 8.0)->Apply(shapes);
BENCHMARK(forward_bf16)->Apply(shapes);
BENCHMARK_CAPTURE(memcpy_same_bytes, forward_bf16, 6.0)->Apply(shapes);
BENCHMARK(backward_f32)->Apply(shapes);
BENCHMARK(backward_scalar)->Apply(shapes);
BENCHMARK_CAPTURE(memcpy_same_bytes, backward_f32, 12.0)->Apply(shapes);
BENCHMARK(backward_bf16)->Apply(shapes);
BENCHMARK_CAPTURE(memcpy_same_bytes, backward_bf16, 10.0)->Apply(shapes);
BENCHMARK(unpack_bf16)->Apply(shapes);
BENCHMARK(unpack_scalar)->Apply(shapes);
BENCHMARK_CAPTURE(memcpy_same_bytes, unpack_bf16, 2.25)->Apply(shapes);
BENCHMARK(scale_gradient_f32)->Apply(shapes);
BENCHMARK(scale_gradient_scalar)->Apply(shapes);
BENCHMARK_CAPTURE(memcpy_same_bytes, scale_gradient_f32, 4.25)->Apply(shapes);
BENCHMARK(adamw)->Apply(shapes);
BENCHMARK(adamw_scalar)->Apply(shapes);
BENCHMARK_CAPTURE(memcpy_same_bytes, adamw, 28.0)->Apply(shapes);

}  // namespace
}  // namespace qaas::kernels

BENCHMARK_MAIN();
