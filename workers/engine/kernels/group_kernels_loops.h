#pragma once

#include "workers/engine/kernels/group_kernels.h"
#include "workers/engine/kernels/simd.h"

/// Bodies of GroupKernels, compiled once per instruction set by the file that includes this one.
namespace qaas::kernels {
namespace {

/// Beyond this a quotient saturates whatever its zero point is (codes reach 255), and below it
/// round_half_even is exact.
constexpr float kQuotientBound = 1024.0f;

QAAS_INLINE float largest_code(int bits) { return static_cast<float>((1 << bits) - 1); }

QAAS_INLINE Floats bounded_quotient(Floats weight, float scale) {
  return at_most(at_least(weight / broadcast(scale), -kQuotientBound), kQuotientBound);
}

QAAS_INLINE Floats code_of(Floats weight, float scale, float zero_point, float max_code) {
  const Floats level = round_half_even(bounded_quotient(weight, scale)) + broadcast(zero_point);
  return at_most(at_least(level, 0.0f), max_code);
}

void effective_qparams_loop(const float* scale, const float* zero_point, int64_t count, int bits,
                            float* effective_scale, float* effective_zero_point) {
  const float max_code = largest_code(bits);
  const auto one_vector = [&](const float* s_in, const float* z_in, float* s_out, float* z_out) {
    const Floats s = at_most(at_least(load(s_in), 1e-4f), 1e4f);
    // All values are now normal fp16 numbers before rounding, so fp16 is fp32 with 13 bits less.
    const Words bits_of_s = floats_to_bits(s);
    const Words rounded = (bits_of_s + 0xfffu + ((bits_of_s >> 13) & 1u)) & 0xffffe000u;
    store(s_out, s == s ? bits_to_floats(rounded) : s);
    const Floats z = at_most(at_least(load(z_in), -kQuotientBound), kQuotientBound);
    // Adding zero turns a negative zero into a positive one.
    store(z_out, at_most(at_least(round_half_even(z), 0.0f), max_code) + 0.0f);
  };
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    one_vector(scale + i, zero_point + i, effective_scale + i, effective_zero_point + i);
  }
  if (i < count) {
    const int n = static_cast<int>(count - i);
    const PaddedRun<float> s(scale + i, n), z(zero_point + i, n);
    PaddedRun<float> s_out, z_out;
    one_vector(s.values, z.values, s_out.values, z_out.values);
    s_out.store_to(effective_scale + i, n);
    z_out.store_to(effective_zero_point + i, n);
  }
}

/// out = finish(code, zero point, scale) for each weight of each group.
template <class Out, class Finish>
QAAS_INLINE void map_codes(const Groups& shape, const float* weight, const float* scale,
                           const float* zero_point, Out* out, const Finish& finish) {
  const float max_code = largest_code(shape.bits);
  const int64_t size = shape.group_size;
  for (int64_t g = 0; g < shape.groups; ++g) {
    const float s = scale[g];
    const float z = zero_point[g];
    const auto run = [&](const float* from, Out* to) {
      for (int p = 0; p < kParts; ++p) {
        const Floats w = load(from + p * kWidth);
        store(to + p * kWidth, finish(code_of(w, s, z, max_code), z, s));
      }
    };
    const float* w = weight + g * size;
    Out* o = out + g * size;
    for_each_run(
        size, [&](int64_t i) { run(w + i, o + i); },
        [&](int64_t i, int n) {
          const PaddedRun<float> from(w + i, n);
          PaddedRun<Out> to;
          run(from.values, to.values);
          to.store_to(o + i, n);
        });
  }
}

template <class Out>
void forward_loop(const Groups& shape, const float* weight, const float* scale,
                  const float* zero_point, Out* weight_hat) {
  map_codes(shape, weight, scale, zero_point, weight_hat,
            [](Floats code, float z, float s) { return (code - broadcast(z)) * s; });
}

void quantize_loop(const Groups& shape, const float* weight, const float* scale,
                   const float* zero_point, uint8_t* codes) {
  map_codes(shape, weight, scale, zero_point, codes,
            [](Floats code, float, float) { return code; });
}

template <bool kWeighted>
QAAS_INLINE void candidate_errors_of(int64_t group_size, int bits, const float* weight,
                                     const float* importance, int64_t candidates,
                                     const float* scale, const float* zero_point, float* error) {
  const float max_code = largest_code(bits);
  for (int64_t c = 0; c < candidates; ++c) {
    const float s = scale[c];
    const float z = zero_point[c];
    const float reciprocal = 1.0f / s;
    Floats sum[kParts] = {};
    const auto run = [&](const float* w_in, const float* importance_in) {
      for (int p = 0; p < kParts; ++p) {
        const Floats w = load(w_in + p * kWidth);
        const Floats quotient =
            at_most(at_least(w * broadcast(reciprocal), -kQuotientBound), kQuotientBound);
        const Floats code =
            at_most(at_least(round_half_even(quotient) + broadcast(z), 0.0f), max_code);
        const Floats difference = (code - broadcast(z)) * s - w;
        const Floats square = difference * difference;
        sum[p] += kWeighted ? square * load(importance_in + p * kWidth) : square;
      }
    };
    // A padded weight is zero, which every grid holds: it adds no error.
    for_each_run(
        group_size, [&](int64_t i) { run(weight + i, kWeighted ? importance + i : weight); },
        [&](int64_t i, int n) {
          const PaddedRun<float> w(weight + i, n);
          const PaddedRun<float> h(kWeighted ? importance + i : weight, n);
          run(w.values, h.values);
        });
    error[c] = sum_lanes(sum);
  }
}

QAAS_LOOP void candidate_errors_loop(int64_t group_size, int bits, const float* weight,
                                     const float* importance, int64_t candidates,
                                     const float* scale, const float* zero_point, float* error) {
  if (importance == nullptr) {
    candidate_errors_of<false>(group_size, bits, weight, importance, candidates, scale, zero_point,
                               error);
  } else {
    candidate_errors_of<true>(group_size, bits, weight, importance, candidates, scale, zero_point,
                              error);
  }
}

template <class Grad>
void backward_loop(const Groups& shape, const float* weight, const float* scale,
                   const float* zero_point, const Grad* grad, float* grad_weight, float* grad_scale,
                   float* grad_zero_point) {
  const float max_code = largest_code(shape.bits);
  const int64_t size = shape.group_size;
  for (int64_t g = 0; g < shape.groups; ++g) {
    const float s = scale[g];
    const float z = zero_point[g];
    Floats scale_sum[kParts] = {};
    Floats outside_sum[kParts] = {};  // of grad where the code saturates
    const auto run = [&](const float* w_in, const Grad* grad_in, float* grad_out) {
      for (int p = 0; p < kParts; ++p) {
        const Floats quotient = bounded_quotient(load(w_in + p * kWidth), s);
        const Floats rounded = round_half_even(quotient);
        const Floats level = rounded + broadcast(z);
        const Floats d = load(grad_in + p * kWidth);
        const Floats zeros = {};
        const Ints below = level < zeros;
        const Ints inside = ~below & (level <= broadcast(max_code));
        const Floats saturated = (below ? zeros : broadcast(max_code)) - broadcast(z);
        const Floats kept = inside ? d : zeros;
        store(grad_out + p * kWidth, kept);
        scale_sum[p] += d * (inside ? rounded - quotient : saturated);
        outside_sum[p] += inside ? zeros : d;
      }
    };
    const float* w = weight + g * size;
    const Grad* d = grad + g * size;
    float* o = grad_weight + g * size;
    for_each_run(
        size, [&](int64_t i) { run(w + i, d + i, o + i); },
        [&](int64_t i, int n) {
          const PaddedRun<float> w_in(w + i, n);
          const PaddedRun<Grad> grad_in(d + i, n);
          PaddedRun<float> grad_out;
          run(w_in.values, grad_in.values, grad_out.values);
          grad_out.store_to(o + i, n);
        });
    grad_scale[g] = sum_lanes(scale_sum);
    if (grad_zero_point != nullptr) grad_zero_point[g] = -s * sum_lanes(outside_sum);
  }
}

/// kLanes codes of `kBits` bits each, from the 2 * kBits bytes they fill.
template <int kBits>
QAAS_INLINE void unpack_run(const uint8_t* packed, Floats (&codes)[kParts]) {
  if constexpr (kBits == 8) {
    for (int p = 0; p < kParts; ++p) {
      Bytes bytes;
      __builtin_memcpy(&bytes, packed + p * kWidth, sizeof bytes);
      codes[p] = __builtin_convertvector(__builtin_convertvector(bytes, Ints), Floats);
    }
  } else {
    uint64_t bits = 0;
    __builtin_memcpy(&bits, packed, sizeof(uint16_t) * kBits);
    // Eight codes fit one 32-bit word for every width up to 4.
    const uint32_t low = static_cast<uint32_t>(bits);
    const uint32_t high = static_cast<uint32_t>(bits >> (8 * kBits));
    for (int p = 0; p < kParts; ++p) {
      Words word;
      Words shift;
      for (int i = 0; i < kWidth; ++i) {
        const int64_t lane = p * kWidth + i;
        word[i] = lane < 8 ? low : high;
        shift[i] = static_cast<uint32_t>(kBits * (lane % 8));
      }
      const Words code = (word >> shift) & ((1u << kBits) - 1u);
      codes[p] = __builtin_convertvector(reinterpret_cast<Ints>(code), Floats);
    }
  }
}

template <int kBits, class Out>
void dequantize_bits(const Groups& shape, const uint8_t* packed, const float* scale,
                     const float* zero_point, Out* weight_hat) {
  for (int64_t g = 0; g < shape.groups; ++g) {
    const float s = scale[g];
    const float z = zero_point[g];
    for (int64_t i = 0; i < shape.group_size; i += kLanes) {
      const int64_t at = g * shape.group_size + i;
      Floats codes[kParts];
      unpack_run<kBits>(packed + at * kBits / 8, codes);
      for (int p = 0; p < kParts; ++p) {
        store(weight_hat + at + p * kWidth, (codes[p] - broadcast(z)) * s);
      }
    }
  }
}

template <int kBits, class Grad>
void scale_gradient_bits(const Groups& shape, const uint8_t* packed, const float* zero_point,
                         const Grad* grad, float* grad_scale) {
  for (int64_t g = 0; g < shape.groups; ++g) {
    const float z = zero_point[g];
    Floats sum[kParts] = {};
    for (int64_t i = 0; i < shape.group_size; i += kLanes) {
      const int64_t at = g * shape.group_size + i;
      Floats codes[kParts];
      unpack_run<kBits>(packed + at * kBits / 8, codes);
      for (int p = 0; p < kParts; ++p) {
        sum[p] += load(grad + at + p * kWidth) * (codes[p] - broadcast(z));
      }
    }
    grad_scale[g] = sum_lanes(sum);
  }
}

template <class Out>
void dequantize_loop(const Groups& shape, const uint8_t* packed, const float* scale,
                     const float* zero_point, Out* weight_hat) {
  switch (shape.bits) {
    case 2:
      return dequantize_bits<2>(shape, packed, scale, zero_point, weight_hat);
    case 3:
      return dequantize_bits<3>(shape, packed, scale, zero_point, weight_hat);
    case 4:
      return dequantize_bits<4>(shape, packed, scale, zero_point, weight_hat);
    default:
      return dequantize_bits<8>(shape, packed, scale, zero_point, weight_hat);
  }
}

template <class Grad>
void scale_gradient_loop(const Groups& shape, const uint8_t* packed, const float* zero_point,
                         const Grad* grad, float* grad_scale) {
  switch (shape.bits) {
    case 2:
      return scale_gradient_bits<2>(shape, packed, zero_point, grad, grad_scale);
    case 3:
      return scale_gradient_bits<3>(shape, packed, zero_point, grad, grad_scale);
    case 4:
      return scale_gradient_bits<4>(shape, packed, zero_point, grad, grad_scale);
    default:
      return scale_gradient_bits<8>(shape, packed, zero_point, grad, grad_scale);
  }
}

template <class Grad>
void zero_point_gradient_loop(const Groups& shape, const float* scale, const Grad* grad,
                              float* grad_zero_point) {
  for (int64_t g = 0; g < shape.groups; ++g) {
    Floats sum[kParts] = {};
    for (int64_t i = 0; i < shape.group_size; i += kLanes) {
      const Grad* at = grad + g * shape.group_size + i;
      for (int p = 0; p < kParts; ++p) sum[p] += load(at + p * kWidth);
    }
    grad_zero_point[g] = -scale[g] * sum_lanes(sum);
  }
}

float sum_of_squares_loop(const float* values, int64_t count) {
  Floats sum[kParts] = {};
  const auto run = [&](const float* from) {
    for (int p = 0; p < kParts; ++p) {
      const Floats x = load(from + p * kWidth);
      sum[p] += x * x;
    }
  };
  for_each_run(
      count, [&](int64_t i) { run(values + i); },
      [&](int64_t i, int n) {
        const PaddedRun<float> last(values + i, n);
        run(last.values);
      });
  return sum_lanes(sum);
}

void adamw_loop(const AdamWFactors& f, int64_t count, float* parameter, const float* gradient,
                float* first_moment, float* second_moment) {
  const auto one_vector = [&](float* p_at, const float* g_at, float* m_at, float* v_at) {
    const Floats g = load(g_at);
    const Floats m = load(m_at) * f.beta1 + g * f.one_minus_beta1;
    const Floats v = load(v_at) * f.beta2 + (g * f.one_minus_beta2) * g;
    const Floats denominator = square_root(v) / broadcast(f.second_correction) + f.epsilon;
    store(m_at, m);
    store(v_at, v);
    store(p_at, load(p_at) * f.decay - (m * f.step_size) / denominator);
  };
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    one_vector(parameter + i, gradient + i, first_moment + i, second_moment + i);
  }
  if (i < count) {
    const int n = static_cast<int>(count - i);
    PaddedRun<float> p(parameter + i, n), m(first_moment + i, n), v(second_moment + i, n);
    const PaddedRun<float> g(gradient + i, n);
    one_vector(p.values, g.values, m.values, v.values);
    p.store_to(parameter + i, n);
    m.store_to(first_moment + i, n);
    v.store_to(second_moment + i, n);
  }
}

template <class From, class To>
void convert_loop(const From* from, int64_t count, To* to) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) store(to + i, load(from + i));
  if (i < count) {
    const int n = static_cast<int>(count - i);
    const PaddedRun<From> in(from + i, n);
    PaddedRun<To> out;
    store(out.values, load(in.values));
    out.store_to(to + i, n);
  }
}

constexpr GroupKernels make_group_kernels() {
  return {
      .effective_qparams = effective_qparams_loop,
      .forward_f32 = forward_loop<float>,
      .forward_bf16 = forward_loop<Bfloat16Bits>,
      .backward_f32 = backward_loop<float>,
      .backward_bf16 = backward_loop<Bfloat16Bits>,
      .candidate_errors = candidate_errors_loop,
      .quantize = quantize_loop,
      .dequantize_f32 = dequantize_loop<float>,
      .dequantize_bf16 = dequantize_loop<Bfloat16Bits>,
      .scale_gradient_f32 = scale_gradient_loop<float>,
      .scale_gradient_bf16 = scale_gradient_loop<Bfloat16Bits>,
      .zero_point_gradient_f32 = zero_point_gradient_loop<float>,
      .zero_point_gradient_bf16 = zero_point_gradient_loop<Bfloat16Bits>,
      .sum_of_squares = sum_of_squares_loop,
      .adamw = adamw_loop,
      .f32_to_bf16 = convert_loop<float, Bfloat16Bits>,
      .bf16_to_f32 = convert_loop<Bfloat16Bits, float>,
  };
}

}  // namespace
}  // namespace qaas::kernels
