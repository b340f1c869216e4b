#include "workers/engine/kernels/decoder_kernels.h"

#include <algorithm>
#include <cassert>
#include <type_traits>

#include "workers/engine/kernels/instruction_set.h"
#include "workers/engine/kernels/parallel_ranges.h"
#include "workers/engine/kernels/row_kernels.h"

namespace qaas::kernels {
namespace {

const RowKernels& chosen() {
#if defined(QAAS_KERNELS_X86)
  static const RowKernels& kernels =
      best_instruction_set() == InstructionSet::kAvx512 ? avx512_row_kernels()
      : best_instruction_set() == InstructionSet::kAvx2 ? avx2_row_kernels()
                                                        : generic_row_kernels();
  return kernels;
#else
  return generic_row_kernels();
#endif
}

template <class T>
const TypedRowKernels<T>& kernels() {
  if constexpr (std::is_same_v<T, float>) {
    return chosen().f32;
  } else {
    return chosen().bf16;
  }
}

/// Rows of `cols` elements that are worth waking a thread for.
int64_t rows_per_thread(int64_t cols) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, cols));
}

}  // namespace

template <class T>
void rms_norm_forward(int64_t rows, int64_t dim, const float* x, const float* weight, float epsilon,
                      T* out, float* inverse_rms, int threads) {
  parallel_ranges(rows, rows_per_thread(dim), threads, [&](int64_t begin, int64_t end) {
    kernels<T>().rms_norm_forward(end - begin, dim, x + begin * dim, weight, epsilon,
                                  out + begin * dim, inverse_rms + begin);
  });
}

template <class T>
void rms_norm_backward(int64_t rows, int64_t dim, const float* x, const float* weight,
                       const float* inverse_rms, const T* grad, const float* residual_grad,
                       float* grad_x, float* grad_weight, int threads) {
  // Each column is summed over all rows by one thread: the order does not depend on their number.
  parallel_ranges(dim, rows_per_thread(rows), threads, [&](int64_t begin, int64_t end) {
    kernels<T>().rms_norm_weight_gradient(rows, dim, begin, end, x, inverse_rms, grad, grad_weight);
  });
  parallel_ranges(rows, rows_per_thread(dim), threads, [&](int64_t begin, int64_t end) {
    kernels<T>().rms_norm_input_gradient(
        end - begin, dim, x + begin * dim, weight, inverse_rms + begin, grad + begin * dim,
        residual_grad == nullptr ? nullptr : residual_grad + begin * dim, grad_x + begin * dim);
  });
}

template <class T>
void swiglu_forward(int64_t rows, int64_t cols, int64_t row_stride, const T* gate, const T* up,
                    T* out, int threads) {
  parallel_ranges(rows, rows_per_thread(cols), threads, [&](int64_t begin, int64_t end) {
    kernels<T>().swiglu_forward(end - begin, cols, row_stride, gate + begin * row_stride,
                                up + begin * row_stride, out + begin * cols);
  });
}

template <class T>
void swiglu_backward(int64_t rows, int64_t cols, int64_t row_stride, const T* gate, const T* up,
                     const T* grad, T* grad_gate, T* grad_up, int threads) {
  parallel_ranges(rows, rows_per_thread(cols), threads, [&](int64_t begin, int64_t end) {
    const int64_t at = begin * row_stride;
    kernels<T>().swiglu_backward(end - begin, cols, row_stride, gate + at, up + at,
                                 grad + begin * cols, grad_gate + at, grad_up + at);
  });
}

template <class T>
void softmax_causal_forward(int64_t matrices, int64_t length, float scale, const T* scores,
                            T* probabilities, int threads) {
  assert(scale > 0);
  parallel_ranges(
      matrices * length, rows_per_thread(length), threads, [&](int64_t begin, int64_t end) {
        kernels<T>().softmax_causal_forward(begin, end, length, scale, scores, probabilities);
      });
}

template <class T>
void softmax_causal_backward(int64_t matrices, int64_t length, float scale, const T* probabilities,
                             const T* grad, T* grad_scores, int threads) {
  parallel_ranges(matrices * length, rows_per_thread(length), threads,
                  [&](int64_t begin, int64_t end) {
                    kernels<T>().softmax_causal_backward(begin, end, length, scale, probabilities,
                                                         grad, grad_scores);
                  });
}

template <class T>
void rotate_heads(const HeadsShape& shape, const float* cosine, const float* sine,
                  Rotation rotation, const T* from, const HeadStrides& from_strides, T* to,
                  const HeadStrides& to_strides, int threads) {
  assert(shape.head_dim % 2 == 0);
  const float sign = rotation == Rotation::kForward ? 1.0f : -1.0f;
  const int64_t half = shape.head_dim / 2;
  parallel_ranges(shape.sequences * shape.positions, rows_per_thread(shape.heads * shape.head_dim),
                  threads, [&](int64_t begin, int64_t end) {
                    for (int64_t token = begin; token < end; ++token) {
                      const int64_t b = token / shape.positions;
                      const int64_t p = token % shape.positions;
                      const T* source =
                          from + b * from_strides.sequence + p * from_strides.position;
                      T* destination = to + b * to_strides.sequence + p * to_strides.position;
                      for (int64_t h = 0; h < shape.heads; ++h) {
                        kernels<T>().rotate_head(shape.head_dim, cosine + p * half, sine + p * half,
                                                 sign, source + h * from_strides.head,
                                                 destination + h * to_strides.head);
                      }
                    }
                  });
}

template <class T>
void cross_entropy(int64_t rows, int64_t cols, const T* logits, const int64_t* targets,
                   float grad_scale, float* losses, T* grad, int threads) {
  parallel_ranges(rows, rows_per_thread(cols), threads, [&](int64_t begin, int64_t end) {
    kernels<T>().cross_entropy(end - begin, cols, logits + begin * cols, targets + begin,
                               grad_scale, losses + begin,
                               grad == nullptr ? nullptr : grad + begin * cols);
  });
}

template <class T>
void distillation(int64_t rows, int64_t cols, const T* logits, const T* teacher,
                  const int64_t* targets, const float* row_weights, const Distillation& terms,
                  float grad_scale, float* losses, T* grad, int threads) {
  assert(terms.temperature > 0);
  parallel_ranges(rows, rows_per_thread(cols), threads, [&](int64_t begin, int64_t end) {
    kernels<T>().distillation(end - begin, cols, logits + begin * cols, teacher + begin * cols,
                              targets + begin,
                              row_weights == nullptr ? nullptr : row_weights + begin, terms,
                              grad_scale, losses + begin, grad + begin * cols);
  });
}

template <class T>
void quantize_activations(const ActivationGroups& shape, const T* x, T* out, int threads) {
  parallel_ranges(
      shape.groups, rows_per_thread(shape.size), threads, [&](int64_t begin, int64_t end) {
        ActivationGroups part = shape;
        part.groups = end - begin;
        kernels<T>().quantize_activations(part, x + begin * shape.size, out + begin * shape.size);
      });
}

template <class T>
void quantize_activations_backward(const ActivationGroups& shape, const T* x, const T* grad,
                                   T* grad_x, float* grad_clip, int threads) {
  parallel_ranges(shape.groups, rows_per_thread(shape.size), threads,
                  [&](int64_t begin, int64_t end) {
                    ActivationGroups part = shape;
                    part.groups = end - begin;
                    const int64_t at = begin * shape.size;
                    kernels<T>().quantize_activations_backward(part, x + at, grad + at, grad_x + at,
                                                               grad_clip + begin);
                  });
}

// NOLINTBEGIN(bugprone-macro-parentheses): T is a type.
#define QAAS_INSTANTIATE(T)                                                                        \
  template void rms_norm_forward<T>(int64_t, int64_t, const float*, const float*, float, T*,       \
                                    float*, int);                                                  \
  template void rms_norm_backward<T>(int64_t, int64_t, const float*, const float*, const float*,   \
                                     const T*, const float*, float*, float*, int);                 \
  template void swiglu_forward<T>(int64_t, int64_t, int64_t, const T*, const T*, T*, int);         \
  template void swiglu_backward<T>(int64_t, int64_t, int64_t, const T*, const T*, const T*, T*,    \
                                   T*, int);                                                       \
  template void softmax_causal_forward<T>(int64_t, int64_t, float, const T*, T*, int);             \
  template void softmax_causal_backward<T>(int64_t, int64_t, float, const T*, const T*, T*, int);  \
  template void rotate_heads<T>(const HeadsShape&, const float*, const float*, Rotation, const T*, \
                                const HeadStrides&, T*, const HeadStrides&, int);                  \
  template void cross_entropy<T>(int64_t, int64_t, const T*, const int64_t*, float, float*, T*,    \
                                 int);                                                             \
  template void distillation<T>(int64_t, int64_t, const T*, const T*, const int64_t*,              \
                                const float*, const Distillation&, float, float*, T*, int);        \
  template void quantize_activations<T>(const ActivationGroups&, const T*, T*, int);               \
  template void quantize_activations_backward<T>(const ActivationGroups&, const T*, const T*, T*,  \
                                                 float*, int);
QAAS_INSTANTIATE(float)
QAAS_INSTANTIATE(Bfloat16Bits)
#undef QAAS_INSTANTIATE
// NOLINTEND(bugprone-macro-parentheses)

}  // namespace qaas::kernels
