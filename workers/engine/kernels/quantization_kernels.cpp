#include "workers/engine/kernels/quantization_kernels.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <vector>

#include "workers/engine/kernels/group_kernels.h"
#include "workers/engine/kernels/instruction_set.h"
#include "workers/engine/kernels/parallel_ranges.h"

namespace qaas::kernels {
namespace {

static_assert(std::endian::native == std::endian::little, "packed words are read as bytes");

/// Below this many elements per thread, waking one costs more than it saves.
constexpr int64_t kElementsPerThread = 16384;

/// Calls body(groups, first_group, first_element) for a share of the matrix on each thread.
template <class Body>
void for_groups(const GroupedMatrix& shape, int threads, const Body& body) {
  assert(shape.group_size > 0 && shape.cols % shape.group_size == 0);
  const int64_t count = shape.rows * (shape.cols / shape.group_size);
  const int64_t groups_per_thread = std::max<int64_t>(1, kElementsPerThread / shape.group_size);
  parallel_ranges(count, groups_per_thread, threads, [&](int64_t begin, int64_t end) {
    body(Groups{end - begin, shape.group_size, shape.bits}, begin, begin * shape.group_size);
  });
}

/// The same, with the byte at which a share's codes start: packed groups end on byte borders.
template <class Body>
void for_packed_groups(const GroupedMatrix& shape, const uint32_t* packed, int threads,
                       const Body& body) {
  assert(shape.cols % 32 == 0 && shape.group_size % 16 == 0);
  const auto* bytes = reinterpret_cast<const uint8_t*>(packed);
  for_groups(shape, threads, [&](const Groups& part, int64_t group, int64_t at) {
    body(part, bytes + at * shape.bits / 8, group, at);
  });
}

}  // namespace

const GroupKernels& best_group_kernels() {
#if defined(QAAS_KERNELS_X86)
  static const GroupKernels& kernels =
      best_instruction_set() == InstructionSet::kAvx512 ? avx512_group_kernels()
      : best_instruction_set() == InstructionSet::kAvx2 ? avx2_group_kernels()
                                                        : generic_group_kernels();
  return kernels;
#else
  return generic_group_kernels();
#endif
}

void effective_qparams(const float* scale, const float* zero_point, int64_t count, int bits,
                       float* effective_scale, float* effective_zero_point) {
  best_group_kernels().effective_qparams(scale, zero_point, count, bits, effective_scale,
                                         effective_zero_point);
}

void fake_quantize_forward(const GroupedMatrix& shape, const float* weight, const float* scale,
                           const float* zero_point, float* weight_hat, int threads) {
  for_groups(shape, threads, [&](const Groups& part, int64_t group, int64_t at) {
    best_group_kernels().forward_f32(part, weight + at, scale + group, zero_point + group,
                                     weight_hat + at);
  });
}

void fake_quantize_forward(const GroupedMatrix& shape, const float* weight, const float* scale,
                           const float* zero_point, Bfloat16Bits* weight_hat, int threads) {
  for_groups(shape, threads, [&](const Groups& part, int64_t group, int64_t at) {
    best_group_kernels().forward_bf16(part, weight + at, scale + group, zero_point + group,
                                      weight_hat + at);
  });
}

void fake_quantize_backward(const GroupedMatrix& shape, const float* weight, const float* scale,
                            const float* zero_point, const float* grad, float* grad_weight,
                            float* grad_scale, float* grad_zero_point, int threads) {
  for_groups(shape, threads, [&](const Groups& part, int64_t group, int64_t at) {
    best_group_kernels().backward_f32(
        part, weight + at, scale + group, zero_point + group, grad + at, grad_weight + at,
        grad_scale + group, grad_zero_point == nullptr ? nullptr : grad_zero_point + group);
  });
}

void fake_quantize_backward(const GroupedMatrix& shape, const float* weight, const float* scale,
                            const float* zero_point, const Bfloat16Bits* grad, float* grad_weight,
                            float* grad_scale, float* grad_zero_point, int threads) {
  for_groups(shape, threads, [&](const Groups& part, int64_t group, int64_t at) {
    best_group_kernels().backward_bf16(
        part, weight + at, scale + group, zero_point + group, grad + at, grad_weight + at,
        grad_scale + group, grad_zero_point == nullptr ? nullptr : grad_zero_point + group);
  });
}

void quantize(const GroupedMatrix& shape, const float* weight, const float* scale,
              const float* zero_point, uint8_t* codes, int threads) {
  for_groups(shape, threads, [&](const Groups& part, int64_t group, int64_t at) {
    best_group_kernels().quantize(part, weight + at, scale + group, zero_point + group, codes + at);
  });
}

void unpack_dequantize(const GroupedMatrix& shape, const uint32_t* packed, const float* scale,
                       const float* zero_point, float* weight_hat, int threads) {
  for_packed_groups(shape, packed, threads,
                    [&](const Groups& part, const uint8_t* bytes, int64_t group, int64_t at) {
                      best_group_kernels().dequantize_f32(part, bytes, scale + group,
                                                          zero_point + group, weight_hat + at);
                    });
}

void unpack_dequantize(const GroupedMatrix& shape, const uint32_t* packed, const float* scale,
                       const float* zero_point, Bfloat16Bits* weight_hat, int threads) {
  for_packed_groups(shape, packed, threads,
                    [&](const Groups& part, const uint8_t* bytes, int64_t group, int64_t at) {
                      best_group_kernels().dequantize_bf16(part, bytes, scale + group,
                                                           zero_point + group, weight_hat + at);
                    });
}

void packed_scale_gradient(const GroupedMatrix& shape, const uint32_t* packed,
                           const float* zero_point, const float* grad, float* grad_scale,
                           int threads) {
  for_packed_groups(shape, packed, threads,
                    [&](const Groups& part, const uint8_t* bytes, int64_t group, int64_t at) {
                      best_group_kernels().scale_gradient_f32(part, bytes, zero_point + group,
                                                              grad + at, grad_scale + group);
                    });
}

void packed_scale_gradient(const GroupedMatrix& shape, const uint32_t* packed,
                           const float* zero_point, const Bfloat16Bits* grad, float* grad_scale,
                           int threads) {
  for_packed_groups(shape, packed, threads,
                    [&](const Groups& part, const uint8_t* bytes, int64_t group, int64_t at) {
                      best_group_kernels().scale_gradient_bf16(part, bytes, zero_point + group,
                                                               grad + at, grad_scale + group);
                    });
}

void packed_zero_point_gradient(const GroupedMatrix& shape, const float* scale, const float* grad,
                                float* grad_zero_point, int threads) {
  assert(shape.group_size % 16 == 0);
  for_groups(shape, threads, [&](const Groups& part, int64_t group, int64_t at) {
    best_group_kernels().zero_point_gradient_f32(part, scale + group, grad + at,
                                                 grad_zero_point + group);
  });
}

void packed_zero_point_gradient(const GroupedMatrix& shape, const float* scale,
                                const Bfloat16Bits* grad, float* grad_zero_point, int threads) {
  assert(shape.group_size % 16 == 0);
  for_groups(shape, threads, [&](const Groups& part, int64_t group, int64_t at) {
    best_group_kernels().zero_point_gradient_bf16(part, scale + group, grad + at,
                                                  grad_zero_point + group);
  });
}

double sum_of_squares(const float* values, int64_t count, int threads) {
  // One partial sum per piece, added in order: the cuts between threads do not show.
  const int64_t pieces = (count + kSquaresAtATime - 1) / kSquaresAtATime;
  std::vector<float> partial(static_cast<size_t>(pieces));
  parallel_ranges(pieces, kElementsPerThread / kSquaresAtATime, threads,
                  [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; ++i) {
                      const int64_t at = i * kSquaresAtATime;
                      partial[static_cast<size_t>(i)] = best_group_kernels().sum_of_squares(
                          values + at, std::min(kSquaresAtATime, count - at));
                    }
                  });
  double sum = 0;
  for (const float part : partial) sum += static_cast<double>(part);
  return sum;
}

void adamw_step(const AdamW& options, int64_t count, float* parameter, const float* gradient,
                float* first_moment, float* second_moment, int threads) {
  // In double, as torch does it: 1 - beta^step loses most of its digits in float.
  const double lr = options.learning_rate;
  const double step = static_cast<double>(options.step);
  const AdamWFactors factors = {
      .decay = static_cast<float>(1.0 - lr * options.weight_decay),
      .beta1 = options.beta1,
      .one_minus_beta1 = static_cast<float>(1.0 - options.beta1),
      .beta2 = options.beta2,
      .one_minus_beta2 = static_cast<float>(1.0 - options.beta2),
      .second_correction = static_cast<float>(std::sqrt(1.0 - std::pow(options.beta2, step))),
      .step_size = static_cast<float>(lr / (1.0 - std::pow(options.beta1, step))),
      .epsilon = options.epsilon,
  };
  parallel_ranges(count, kElementsPerThread, threads, [&](int64_t begin, int64_t end) {
    best_group_kernels().adamw(factors, end - begin, parameter + begin, gradient + begin,
                               first_moment + begin, second_moment + begin);
  });
}

void convert(const float* from, int64_t count, Bfloat16Bits* to, int threads) {
  parallel_ranges(count, kElementsPerThread, threads, [&](int64_t begin, int64_t end) {
    best_group_kernels().f32_to_bf16(from + begin, end - begin, to + begin);
  });
}

void convert(const Bfloat16Bits* from, int64_t count, float* to, int threads) {
  parallel_ranges(count, kElementsPerThread, threads, [&](int64_t begin, int64_t end) {
    best_group_kernels().bf16_to_f32(from + begin, end - begin, to + begin);
  });
}

}  // namespace qaas::kernels
