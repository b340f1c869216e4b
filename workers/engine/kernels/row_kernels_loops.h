#pragma once

#include "workers/engine/kernels/distillation_loop.h"
#include "workers/engine/kernels/elementary.h"
#include "workers/engine/kernels/row_kernels.h"
#include "workers/engine/kernels/simd.h"

/// Bodies of RowKernels, compiled once per instruction set by the file that includes this one.
namespace qaas::kernels {
namespace {

template <class T>
QAAS_LOOP void rms_norm_forward_loop(int64_t rows, int64_t dim, const float* x, const float* weight,
                                     float epsilon, T* out, float* inverse_rms) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x + r * dim;
    Floats squares[kParts] = {};
    for_each_part(dim, [&](int64_t c, int p, auto n) {
      const Floats v = load_first(row + c, n);
      squares[p] += v * v;
    });
    const float mean = sum_lanes(squares) / static_cast<float>(dim);
    const float inverse = 1.0f / __builtin_sqrtf(mean + epsilon);
    inverse_rms[r] = inverse;
    T* to = out + r * dim;
    for_each_part(dim, [&](int64_t c, int, auto n) {
      store_first(to + c, load_first(row + c, n) * inverse * load_first(weight + c, n), n);
    });
  }
}

template <class T>
QAAS_LOOP void rms_norm_input_gradient_loop(int64_t rows, int64_t dim, const float* x,
                                            const float* weight, const float* inverse_rms,
                                            const T* grad, const float* residual_grad,
                                            float* grad_x) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x + r * dim;
    const T* d = grad + r * dim;
    Floats products[kParts] = {};
    for_each_part(dim, [&](int64_t c, int p, auto n) {
      products[p] += load_first(d + c, n) * load_first(weight + c, n) * load_first(row + c, n);
    });
    const float inverse = inverse_rms[r];
    const float along =
        inverse * inverse * inverse * (sum_lanes(products) / static_cast<float>(dim));
    for_each_part(dim, [&](int64_t c, int, auto n) {
      Floats g = load_first(d + c, n) * load_first(weight + c, n) * inverse -
                 load_first(row + c, n) * along;
      if (residual_grad != nullptr) g += load_first(residual_grad + r * dim + c, n);
      store_first(grad_x + r * dim + c, g, n);
    });
  }
}

template <class T>
QAAS_LOOP void rms_norm_weight_gradient_loop(int64_t rows, int64_t dim, int64_t first, int64_t last,
                                             const float* x, const float* inverse_rms,
                                             const T* grad, float* grad_weight) {
  // A few vectors of columns at a time: enough of each row to use whole cache lines, few enough for
  // the sums to stay in registers.
  constexpr int64_t kBlock = 8;
  int64_t c = first;
  for (; c + kBlock * kWidth <= last; c += kBlock * kWidth) {
    Floats sums[kBlock] = {};
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = r * dim + c;
      for (int k = 0; k < kBlock; ++k) {
        sums[k] += load(grad + at + k * kWidth) * (load(x + at + k * kWidth) * inverse_rms[r]);
      }
    }
    for (int k = 0; k < kBlock; ++k) store(grad_weight + c + k * kWidth, sums[k]);
  }
  for_each_part(last - c, [&](int64_t i, int, auto n) {
    Floats sum = {};
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = r * dim + c + i;
      sum += load_first(grad + at, n) * (load_first(x + at, n) * inverse_rms[r]);
    }
    store_first(grad_weight + c + i, sum, n);
  });
}

template <class T>
QAAS_LOOP void swiglu_forward_loop(int64_t rows, int64_t cols, int64_t row_stride, const T* gate,
                                   const T* up, T* out) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * row_stride;
    for_each_part(cols, [&](int64_t c, int, auto n) {
      const Floats g = load_first(gate + at + c, n);
      const Floats silu = g / (1.0f + exponential(-g));
      store_first(out + r * cols + c, silu * load_first(up + at + c, n), n);
    });
  }
}

template <class T>
QAAS_LOOP void swiglu_backward_loop(int64_t rows, int64_t cols, int64_t row_stride, const T* gate,
                                    const T* up, const T* grad, T* grad_gate, T* grad_up) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * row_stride;
    for_each_part(cols, [&](int64_t c, int, auto n) {
      const Floats g = load_first(gate + at + c, n);
      const Floats u = load_first(up + at + c, n);
      const Floats d = load_first(grad + r * cols + c, n);
      const Floats sigmoid = 1.0f / (1.0f + exponential(-g));
      const Floats silu = g * sigmoid;
      store_first(grad_gate + at + c, d * u * (sigmoid + silu * (1.0f - sigmoid)), n);
      store_first(grad_up + at + c, d * silu, n);
    });
  }
}

/// Zeroes columns [first, length) of a row.
template <class T>
QAAS_INLINE void clear_from(T* row, int64_t first, int64_t length) {
  __builtin_memset(row + first, 0, static_cast<size_t>(length - first) * sizeof(T));
}

template <class T>
QAAS_LOOP void softmax_causal_forward_loop(int64_t first, int64_t last, int64_t length, float scale,
                                           const T* scores, T* probabilities) {
  for (int64_t r = first; r < last; ++r) {
    const int64_t used = r % length + 1;
    const T* from = scores + r * length;
    T* to = probabilities + r * length;
    Floats most[kParts];
    for (int p = 0; p < kParts; ++p) most[p] = broadcast(-__builtin_inff());
    for_each_part(used, [&](int64_t c, int p, auto n) {
      const Floats s = load_first(from + c, n) * scale;
      most[p] = first_lanes(s > most[p] ? s : most[p], n, most[p]);
    });
    const float top = max_lanes(most);
    // A float row keeps its exponentials in place; in bf16 that would round them twice.
    constexpr bool kKeep = sizeof(T) == sizeof(float);
    Floats sums[kParts] = {};
    for_each_part(used, [&](int64_t c, int p, auto n) {
      const Floats e = exponential(load_first(from + c, n) * scale - top);
      if constexpr (kKeep) store_first(to + c, e, n);
      sums[p] += first_lanes(e, n, Floats{});
    });
    const float inverse = 1.0f / sum_lanes(sums);
    for_each_part(used, [&](int64_t c, int, auto n) {
      const Floats e =
          kKeep ? load_first(to + c, n) : exponential(load_first(from + c, n) * scale - top);
      store_first(to + c, e * inverse, n);
    });
    clear_from(to, used, length);
  }
}

template <class T>
QAAS_LOOP void softmax_causal_backward_loop(int64_t first, int64_t last, int64_t length,
                                            float scale, const T* probabilities, const T* grad,
                                            T* grad_scores) {
  for (int64_t r = first; r < last; ++r) {
    const int64_t used = r % length + 1;
    const T* p_row = probabilities + r * length;
    const T* d_row = grad + r * length;
    T* to = grad_scores + r * length;
    Floats sums[kParts] = {};
    for_each_part(used, [&](int64_t c, int p, auto n) {
      sums[p] += load_first(p_row + c, n) * load_first(d_row + c, n);
    });
    const float mean = sum_lanes(sums);
    for_each_part(used, [&](int64_t c, int, auto n) {
      const Floats p = load_first(p_row + c, n);
      store_first(to + c, scale * p * (load_first(d_row + c, n) - mean), n);
    });
    clear_from(to, used, length);
  }
}

template <class T>
QAAS_LOOP void rotate_head_loop(int64_t head_dim, const float* cosine, const float* sine,
                                float sign, const T* from, T* to) {
  const int64_t half = head_dim / 2;
  for_each_part(half, [&](int64_t i, int, auto n) {
    const Floats a = load_first(from + i, n);
    const Floats b = load_first(from + half + i, n);
    const Floats c = load_first(cosine + i, n);
    const Floats s = load_first(sine + i, n) * sign;
    store_first(to + i, a * c - b * s, n);
    store_first(to + half + i, b * c + a * s, n);
  });
}

template <class T>
QAAS_LOOP void cross_entropy_loop(int64_t rows, int64_t cols, const T* logits,
                                  const int64_t* targets, float grad_scale, float* losses,
                                  T* grad) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* from = logits + r * cols;
    Floats most[kParts];
    for (int p = 0; p < kParts; ++p) most[p] = broadcast(-__builtin_inff());
    for_each_part(cols, [&](int64_t c, int p, auto n) {
      const Floats x = load_first(from + c, n);
      most[p] = first_lanes(x > most[p] ? x : most[p], n, most[p]);
    });
    const float top = max_lanes(most);
    Floats sums[kParts] = {};
    for_each_part(cols, [&](int64_t c, int p, auto n) {
      sums[p] += first_lanes(exponential(load_first(from + c, n) - top), n, Floats{});
    });
    const float sum = sum_lanes(sums);
    const int64_t target = targets[r];
    const float target_logit = load_first(from + target, 1)[0];
    losses[r] = static_cast<float>(__builtin_log(static_cast<double>(sum)) +
                                   (static_cast<double>(top) - static_cast<double>(target_logit)));
    if (grad == nullptr) continue;
    T* to = grad + r * cols;
    const float factor = grad_scale / sum;
    const Floats target_probability = exponential(broadcast(target_logit - top));
    for_each_part(cols, [&](int64_t c, int, auto n) {
      store_first(to + c, exponential(load_first(from + c, n) - top) * factor, n);
    });
    store_first(to + target, target_probability * factor - grad_scale, 1);
  }
}

/// The step between levels of one group; 0 for a group of zeros.
template <class T>
QAAS_INLINE float activation_scale(const ActivationGroups& shape, const T* x) {
  Floats most[kParts] = {};
  for_each_part(shape.size, [&](int64_t c, int p, auto n) {
    const Floats v = load_first(x + c, n);
    const Floats magnitude = bits_to_floats(floats_to_bits(v) & 0x7fffffffu);
    most[p] = magnitude > most[p] ? magnitude : most[p];
  });
  return max_lanes(most) * shape.clip / shape.largest_level;
}

template <class T>
QAAS_LOOP void quantize_activations_loop(const ActivationGroups& shape, const T* x, T* out) {
  const float top = shape.largest_level;
  for (int64_t g = 0; g < shape.groups; ++g) {
    const T* from = x + g * shape.size;
    T* to = out + g * shape.size;
    const float scale = activation_scale(shape, from);
    if (scale == 0) {  // all zeros, or too small for a step; a NaN stays one
      for_each_part(shape.size, [&](int64_t c, int, auto n) {
        store_first(to + c, load_first(from + c, n) * 0.0f + 0.0f, n);
      });
      continue;
    }
    for_each_part(shape.size, [&](int64_t c, int, auto n) {
      const Floats level = round_half_even(load_first(from + c, n) / broadcast(scale));
      store_first(to + c, at_most(at_least(level, -top), top) * scale, n);
    });
  }
}

template <class T>
QAAS_LOOP void quantize_activations_backward_loop(const ActivationGroups& shape, const T* x,
                                                  const T* grad, T* grad_x, float* grad_clip) {
  const float top = shape.largest_level;
  for (int64_t g = 0; g < shape.groups; ++g) {
    const T* from = x + g * shape.size;
    const T* d_row = grad + g * shape.size;
    T* to = grad_x + g * shape.size;
    const float scale = activation_scale(shape, from);
    if (scale == 0) {
      __builtin_memmove(to, d_row, static_cast<size_t>(shape.size) * sizeof(T));
      grad_clip[g] = 0;
      continue;
    }
    Floats sums[kParts] = {};
    for_each_part(shape.size, [&](int64_t c, int p, auto n) {
      const Floats quotient = load_first(from + c, n) / broadcast(scale);
      const Floats level = round_half_even(quotient);
      const Floats d = load_first(d_row + c, n);
      const Floats zeros = {};
      const Ints above = level > broadcast(top), below = level < broadcast(-top);
      const Floats saturated = above ? broadcast(top) : broadcast(-top);
      const Ints outside = above | below;
      sums[p] += d * (outside ? saturated : level - quotient);
      store_first(to + c, outside ? zeros : d, n);
    });
    grad_clip[g] = sum_lanes(sums) * (scale / shape.clip);
  }
}

template <class T>
constexpr TypedRowKernels<T> make_typed_row_kernels() {
  return {
      .rms_norm_forward = rms_norm_forward_loop<T>,
      .rms_norm_input_gradient = rms_norm_input_gradient_loop<T>,
      .rms_norm_weight_gradient = rms_norm_weight_gradient_loop<T>,
      .swiglu_forward = swiglu_forward_loop<T>,
      .swiglu_backward = swiglu_backward_loop<T>,
      .softmax_causal_forward = softmax_causal_forward_loop<T>,
      .softmax_causal_backward = softmax_causal_backward_loop<T>,
      .rotate_head = rotate_head_loop<T>,
      .cross_entropy = cross_entropy_loop<T>,
      .distillation = distillation_loop<T>,
      .quantize_activations = quantize_activations_loop<T>,
      .quantize_activations_backward = quantize_activations_backward_loop<T>,
  };
}

constexpr RowKernels make_row_kernels() {
  return {make_typed_row_kernels<float>(), make_typed_row_kernels<Bfloat16Bits>()};
}

}  // namespace
}  // namespace qaas::kernels
