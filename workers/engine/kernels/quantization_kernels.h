#pragma once

#include <cstdint>

/// CPU kernels behind plain pointers: no torch here. Each has an ATen reference in
/// workers/engine/quant and a test against it. All matrices are row-major [rows, cols]; a group is
/// `group_size` consecutive columns of one row; qparams are [rows, cols / group_size]. Kernels use
/// up to `threads` threads and give the same bytes whatever that number is, and whatever
/// instruction set the CPU has (instruction_set.h). Outputs may not overlap inputs.
namespace qaas::kernels {

/// A 16-bit brain float, as stored.
using Bfloat16Bits = uint16_t;

struct GroupedMatrix {
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t group_size = 0;  ///< divides cols
  int bits = 0;            ///< 2, 3, 4 or 8
};

/// Where a group's zero point may lie: any code, or the mid-point 2^(bits-1).
enum class ZeroPoint { kFree, kMiddle };

/// Master qparams to the values used: scale clamped to [1e-4, 1e4] and rounded to fp16 (half to
/// even), zero point rounded half to even and clamped to [0, 2^bits - 1]. EfficientQAT 1.1.
void effective_qparams(const float* scale, const float* zero_point, int64_t count, int bits,
                       float* effective_scale, float* effective_zero_point);

/// weight_hat = (clamp(round(w / s) + z, 0, Q) - z) * s, with effective s and z; true division,
/// half to even, one product, cast once to the output type. Out may be float or bf16.
void fake_quantize_forward(const GroupedMatrix& shape, const float* weight, const float* scale,
                           const float* zero_point, float* weight_hat, int threads);
void fake_quantize_forward(const GroupedMatrix& shape, const float* weight, const float* scale,
                           const float* zero_point, Bfloat16Bits* weight_hat, int threads);

/// Straight-through gradients (sheet 1.3). grad is d loss / d weight_hat. Writes (does not
/// accumulate) grad_weight [rows, cols], grad_scale and grad_zero_point [rows, groups]. Nothing of
/// the forward pass is kept: all is recomputed from weight and effective qparams. grad_zero_point
/// may be null (symmetric grids).
void fake_quantize_backward(const GroupedMatrix& shape, const float* weight, const float* scale,
                            const float* zero_point, const float* grad, float* grad_weight,
                            float* grad_scale, float* grad_zero_point, int threads);
void fake_quantize_backward(const GroupedMatrix& shape, const float* weight, const float* scale,
                            const float* zero_point, const Bfloat16Bits* grad, float* grad_weight,
                            float* grad_scale, float* grad_zero_point, int threads);

/// Codes from weights: clamp(round(w / s) + z, 0, Q) as uint8.
void quantize(const GroupedMatrix& shape, const float* weight, const float* scale,
              const float* zero_point, uint8_t* codes, int threads);

/// Effective qparams that (nearly) minimise the squared error of each group:
///   sum over the group of importance * (fake_quantize(w) - w)^2, importance [cols] or null (ones).
/// Candidates are the group's range, widened to contain zero, with its ends shrunk by factors
/// (7/8)^k. Asymmetric grids shrink each end on its own (as BitDistiller, arXiv 2402.10631, section
/// 3.1): k = 0..15 for both, then the best pair again in quarter steps up to half a step either
/// way. Symmetric grids shrink the scale, k = 0..15 in quarter steps. Unshrunk is min-max, so no
/// group ends up worse than that; the first of equals is kept.
void clip_search(const GroupedMatrix& shape, ZeroPoint zero_point_kind, const float* weight,
                 const float* importance, float* scale, float* zero_point, int threads);

/// (code - z) * s from dense little-endian packed rows (bit_packing.h): `packed` is
/// [rows, cols * bits / 32] words; cols must be a multiple of 32 and group_size of 16.
void unpack_dequantize(const GroupedMatrix& shape, const uint32_t* packed, const float* scale,
                       const float* zero_point, float* weight_hat, int threads);
void unpack_dequantize(const GroupedMatrix& shape, const uint32_t* packed, const float* scale,
                       const float* zero_point, Bfloat16Bits* weight_hat, int threads);

/// d loss / d scale of a packed projection: per group, sum of grad * (code - z). Writes.
void packed_scale_gradient(const GroupedMatrix& shape, const uint32_t* packed,
                           const float* zero_point, const float* grad, float* grad_scale,
                           int threads);
void packed_scale_gradient(const GroupedMatrix& shape, const uint32_t* packed,
                           const float* zero_point, const Bfloat16Bits* grad, float* grad_scale,
                           int threads);

/// d loss / d zero point of a packed projection, whose codes are fixed: per group, -scale times the
/// sum of grad. cols and group_size as unpack_dequantize. Writes.
void packed_zero_point_gradient(const GroupedMatrix& shape, const float* scale, const float* grad,
                                float* grad_zero_point, int threads);
void packed_zero_point_gradient(const GroupedMatrix& shape, const float* scale,
                                const Bfloat16Bits* grad, float* grad_zero_point, int threads);

/// Sum of squares, in double from float32 sums of a few thousand: not finite if a value is not.
double sum_of_squares(const float* values, int64_t count, int threads);

struct AdamW {
  float learning_rate = 0;
  float beta1 = 0.9f;
  float beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;  ///< decoupled
  int64_t step = 1;        ///< from 1, for bias correction
};
/// One AdamW step over a flat parameter (Loshchilov and Hutter 2019, as torch.optim.AdamW).
void adamw_step(const AdamW& options, int64_t count, float* parameter, const float* gradient,
                float* first_moment, float* second_moment, int threads);

/// fp32 to bf16 (half to even, a NaN stays a NaN) and back.
void convert(const float* from, int64_t count, Bfloat16Bits* to, int threads);
void convert(const Bfloat16Bits* from, int64_t count, float* to, int threads);

}  // namespace qaas::kernels
