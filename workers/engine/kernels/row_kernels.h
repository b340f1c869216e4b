#pragma once

#include <cstdint>

#include "workers/engine/kernels/decoder_kernels.h"

/// The loops behind decoder_kernels.h, once per instruction set; each call works on the calling
/// thread, on the rows it is given.
namespace qaas::kernels {

template <class T>
struct TypedRowKernels {
  void (*rms_norm_forward)(int64_t rows, int64_t dim, const float* x, const float* weight,
                           float epsilon, T* out, float* inverse_rms);
  void (*rms_norm_input_gradient)(int64_t rows, int64_t dim, const float* x, const float* weight,
                                  const float* inverse_rms, const T* grad,
                                  const float* residual_grad, float* grad_x);
  /// Columns [first, last) of the weight's gradient, each summed in row order.
  void (*rms_norm_weight_gradient)(int64_t rows, int64_t dim, int64_t first, int64_t last,
                                   const float* x, const float* inverse_rms, const T* grad,
                                   float* grad_weight);
  void (*swiglu_forward)(int64_t rows, int64_t cols, int64_t row_stride, const T* gate, const T* up,
                         T* out);
  void (*swiglu_backward)(int64_t rows, int64_t cols, int64_t row_stride, const T* gate,
                          const T* up, const T* grad, T* grad_gate, T* grad_up);
  /// Rows [first, last), counted over all matrices; pointers are to the first matrix.
  void (*softmax_causal_forward)(int64_t first, int64_t last, int64_t length, float scale,
                                 const T* scores, T* probabilities);
  void (*softmax_causal_backward)(int64_t first, int64_t last, int64_t length, float scale,
                                  const T* probabilities, const T* grad, T* grad_scores);
  /// One head of one token.
  void (*rotate_head)(int64_t head_dim, const float* cosine, const float* sine, float sign,
                      const T* from, T* to);
  void (*cross_entropy)(int64_t rows, int64_t cols, const T* logits, const int64_t* targets,
                        float grad_scale, float* losses, T* grad);
  void (*distillation)(int64_t rows, int64_t cols, const T* logits, const T* teacher,
                       const int64_t* targets, const float* row_weights, const Distillation& terms,
                       float grad_scale, float* losses, T* grad);
  void (*quantize_activations)(const ActivationGroups& shape, const T* x, T* out);
  void (*quantize_activations_backward)(const ActivationGroups& shape, const T* x, const T* grad,
                                        T* grad_x, float* grad_clip);
};

struct RowKernels {
  TypedRowKernels<float> f32;
  TypedRowKernels<Bfloat16Bits> bf16;
};

/// One table per instruction set; call only into one that supports() allows.
const RowKernels& generic_row_kernels();
#if defined(QAAS_KERNELS_X86)
const RowKernels& avx2_row_kernels();
const RowKernels& avx512_row_kernels();
#endif

}  // namespace qaas::kernels
