#pragma once

#include <cstdint>

#include "workers/engine/kernels/quantization_kernels.h"

/// The loops behind quantization_kernels.h, once per instruction set. A matrix is seen as a flat
/// list of groups (group_size divides cols, so groups follow each other in memory), and a call
/// works on `groups` of them, on the calling thread.
namespace qaas::kernels {

struct Groups {
  int64_t groups = 0;
  int64_t group_size = 0;
  int bits = 0;
};

/// AdamW with everything that depends on the step alone worked out.
struct AdamWFactors {
  float decay = 1;  ///< 1 - learning_rate * weight_decay
  float beta1 = 0;
  float one_minus_beta1 = 0;
  float beta2 = 0;
  float one_minus_beta2 = 0;
  float second_correction = 1;  ///< sqrt(1 - beta2^step)
  float step_size = 0;          ///< learning_rate / (1 - beta1^step)
  float epsilon = 0;
};

/// Values whose squares are summed in float32 before the sums are added in double.
constexpr int64_t kSquaresAtATime = 4096;

struct GroupKernels {
  void (*effective_qparams)(const float* scale, const float* zero_point, int64_t count, int bits,
                            float* effective_scale, float* effective_zero_point);
  void (*forward_f32)(const Groups&, const float* weight, const float* scale,
                      const float* zero_point, float* weight_hat);
  void (*forward_bf16)(const Groups&, const float* weight, const float* scale,
                       const float* zero_point, Bfloat16Bits* weight_hat);
  void (*backward_f32)(const Groups&, const float* weight, const float* scale,
                       const float* zero_point, const float* grad, float* grad_weight,
                       float* grad_scale, float* grad_zero_point);
  void (*backward_bf16)(const Groups&, const float* weight, const float* scale,
                        const float* zero_point, const Bfloat16Bits* grad, float* grad_weight,
                        float* grad_scale, float* grad_zero_point);
  /// error[c] = sum of importance * (weight_hat - weight)^2 over one group, for each pair of
  /// effective qparams (scale[c], zero_point[c]); importance may be null (all ones). Quotients by
  /// way of the reciprocal: a weight on a tie between two codes may take either.
  void (*candidate_errors)(int64_t group_size, int bits, const float* weight,
                           const float* importance, int64_t candidates, const float* scale,
                           const float* zero_point, float* error);
  void (*quantize)(const Groups&, const float* weight, const float* scale, const float* zero_point,
                   uint8_t* codes);
  void (*dequantize_f32)(const Groups&, const uint8_t* packed, const float* scale,
                         const float* zero_point, float* weight_hat);
  void (*dequantize_bf16)(const Groups&, const uint8_t* packed, const float* scale,
                          const float* zero_point, Bfloat16Bits* weight_hat);
  void (*scale_gradient_f32)(const Groups&, const uint8_t* packed, const float* zero_point,
                             const float* grad, float* grad_scale);
  void (*scale_gradient_bf16)(const Groups&, const uint8_t* packed, const float* zero_point,
                              const Bfloat16Bits* grad, float* grad_scale);
  void (*zero_point_gradient_f32)(const Groups&, const float* scale, const float* grad,
                                  float* grad_zero_point);
  void (*zero_point_gradient_bf16)(const Groups&, const float* scale, const Bfloat16Bits* grad,
                                   float* grad_zero_point);
  /// Sum of squares of up to kSquaresAtATime values.
  float (*sum_of_squares)(const float* values, int64_t count);
  void (*adamw)(const AdamWFactors&, int64_t count, float* parameter, const float* gradient,
                float* first_moment, float* second_moment);
  void (*f32_to_bf16)(const float* from, int64_t count, Bfloat16Bits* to);
  void (*bf16_to_f32)(const Bfloat16Bits* from, int64_t count, float* to);
};

/// The table for this CPU.
const GroupKernels& best_group_kernels();

/// One table per instruction set; call only into one that supports() allows.
const GroupKernels& generic_group_kernels();
#if defined(QAAS_KERNELS_X86)
const GroupKernels& avx2_group_kernels();
const GroupKernels& avx512_group_kernels();
#endif

}  // namespace qaas::kernels
