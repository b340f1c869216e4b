#pragma once

#include <cstdint>

#include "workers/engine/kernels/quantization_kernels.h"

/// The element-wise and row-wise parts of a decoder block, forward and backward, behind plain
/// pointers: what lies between the matrix products of a training step. No torch, no allocation.
/// `T` is float or Bfloat16Bits (both are instantiated): the type values are stored in; arithmetic
/// is fp32 throughout and results round once, half to even. Matrices are row-major. Up to `threads`
/// threads; the same bytes whatever that number is and whatever instruction set the CPU has.
/// Outputs may not overlap inputs except where said.
namespace qaas::kernels {

// --- RMSNorm: y = x / sqrt(mean(x^2) + epsilon) * weight over the last dimension

/// x, out: [rows, dim]; weight: [dim]; inverse_rms: [rows], kept for the backward pass.
template <class T>
void rms_norm_forward(int64_t rows, int64_t dim, const float* x, const float* weight, float epsilon,
                      T* out, float* inverse_rms, int threads);

/// grad is d loss / d out. Writes grad_weight [dim] and grad_x [rows, dim]; where residual_grad is
/// not null, grad_x is the sum of it and the gradient through the norm (it may be grad_x itself).
template <class T>
void rms_norm_backward(int64_t rows, int64_t dim, const float* x, const float* weight,
                       const float* inverse_rms, const T* grad, const float* residual_grad,
                       float* grad_x, float* grad_weight, int threads);

// --- SwiGLU: out = silu(gate) * up, silu(g) = g / (1 + exp(-g))

/// gate and up: [rows, cols] with row_stride elements from row to row, so that both may be halves
/// of one product [rows, 2 * cols]. out: [rows, cols], dense.
template <class T>
void swiglu_forward(int64_t rows, int64_t cols, int64_t row_stride, const T* gate, const T* up,
                    T* out, int threads);

/// grad: [rows, cols], dense. grad_gate and grad_up have the stride of gate and up and may be gate
/// and up themselves.
template <class T>
void swiglu_backward(int64_t rows, int64_t cols, int64_t row_stride, const T* gate, const T* up,
                     const T* grad, T* grad_gate, T* grad_up, int threads);

// --- causal softmax: row i of each [length, length] matrix over its columns 0..i, zero beyond

/// probabilities = softmax(scale * scores); scale > 0. May run in place.
template <class T>
void softmax_causal_forward(int64_t matrices, int64_t length, float scale, const T* scores,
                            T* probabilities, int threads);

/// grad is d loss / d probabilities; grad_scores = scale * p * (grad - sum(p * grad)), zero beyond
/// the diagonal. grad_scores may be grad.
template <class T>
void softmax_causal_backward(int64_t matrices, int64_t length, float scale, const T* probabilities,
                             const T* grad, T* grad_scores, int threads);

// --- rotary embedding: pairs (i, i + head_dim / 2)

/// Where head h of position p of sequence b begins: b * sequence + p * position + h * head elements
/// from the start; its head_dim values are consecutive.
struct HeadStrides {
  int64_t sequence = 0;
  int64_t position = 0;
  int64_t head = 0;
};
struct HeadsShape {
  int64_t sequences = 0;
  int64_t positions = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;  ///< even
};
enum class Rotation {
  kForward,   ///< (a, b) -> (a cos - b sin, b cos + a sin)
  kBackward,  ///< its transpose, for gradients
};

/// Rotates `from` into `to`, which may be the same array with the same strides; other strides also
/// transpose ([token, head, dim] to [head, token, dim]) in the same pass. cosine and sine:
/// [positions, head_dim / 2].
template <class T>
void rotate_heads(const HeadsShape& shape, const float* cosine, const float* sine,
                  Rotation rotation, const T* from, const HeadStrides& from_strides, T* to,
                  const HeadStrides& to_strides, int threads);

// --- cross-entropy of next tokens

/// losses[r] = log(sum(exp(logits[r]))) - logits[r][targets[r]], in nats; logits: [rows, cols].
/// Where `grad` is not null it is overwritten with grad_scale * (softmax(logits) - onehot(target))
/// and may be `logits` itself. Targets lie in [0, cols).
template <class T>
void cross_entropy(int64_t rows, int64_t cols, const T* logits, const int64_t* targets,
                   float grad_scale, float* losses, T* grad, int threads);

// --- distillation of next tokens

/// The loss of one row as a sum of terms (distillation sheet, section 3): p and q are the softmax
/// of the teacher's and the student's logits divided by `temperature`. All factors but that of the
/// cross-entropy are multiplied by the row's weight.
struct Distillation {
  float forward_kl = 0;       ///< factor of sum(p ln(p / q))
  float reverse_kl = 0;       ///< factor of sum(q ln(q / p))
  float jensen_shannon = 0;   ///< factor of beta KL(p, m) + (1 - beta) KL(q, m)
  float beta = 0.5f;          ///< in (0, 1): m = beta p + (1 - beta) q
  float teacher_entropy = 0;  ///< factor of -sum(p ln p), which has no gradient
  float cross_entropy = 0;    ///< factor of the cross-entropy with the target, at temperature 1
  float temperature = 1;
};

/// losses[r]: the loss of row r, nats. logits (student), teacher: [rows, cols], finite;
/// row_weights: [rows], or null for ones. `grad` is overwritten with grad_scale * d losses[r] / d
/// logits[r] and may be `logits` itself. Targets lie in [0, cols). Probabilities below about 1e-38
/// are taken for that.
template <class T>
void distillation(int64_t rows, int64_t cols, const T* logits, const T* teacher,
                  const int64_t* targets, const float* row_weights, const Distillation& terms,
                  float grad_scale, float* losses, T* grad, int threads);

// --- dynamic symmetric quantization of activations, in groups of `size` consecutive elements

/// Groups of x and the grid they share.
struct ActivationGroups {
  int64_t groups = 0;
  int64_t size = 0;
  float largest_level = 0;  ///< Q = 2^(bits-1) - 1
  float clip = 1;           ///< in (0, 1]: share of a group's largest magnitude that is kept
};

/// out = clamp(round(x / s), -Q, Q) * s with s = clip * max|x| / Q over the group; true division,
/// half to even. A group of zeros stays one.
template <class T>
void quantize_activations(const ActivationGroups& shape, const T* x, T* out, int threads);

/// Given d loss / d out, writes grad_x (grad where x is within the grid, 0 where it saturates) and
/// per group d loss / d clip = sum of grad * max|x| / Q * (round(x / s) - x / s), or +-Q in place
/// of the difference where x saturates. max|x| counts as a constant. grad_x may be grad.
template <class T>
void quantize_activations_backward(const ActivationGroups& shape, const T* x, const T* grad,
                                   T* grad_x, float* grad_clip, int threads);

}  // namespace qaas::kernels
