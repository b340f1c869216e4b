#pragma once

#include <cstdint>

#include <torch/torch.h>

#include "workers/engine/kernels/decoder_kernels.h"

/// The arithmetic of a decoder between its projections. Differentiable. Statistics, rotations and
/// softmax run in float32; results come back in the compute type (float32 or bfloat16). On the CPU
/// each is one fused pass forward and one backward (workers/engine/kernels); elsewhere, and as what
/// the fused form is tested against, ops::reference.
namespace qaas::ops {

/// x · rsqrt(mean(x², last) + epsilon) · weight.  x: [tokens, dim] float32, weight: [dim] float32
/// → [tokens, dim] of `compute`.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double epsilon,
                       torch::ScalarType compute);

/// silu(gate) · up, all [tokens, intermediate] of one type.
torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up);

struct AttentionShape {
  int64_t batch = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;  ///< divides heads; head h reads key/value head h / (heads / kv_heads)
};

/// Rotary embedding of q and k (halves convention: pairs (i, i + head_dim / 2)), then causal
/// softmax(q·kᵀ / sqrt(head_dim))·v.
/// q: [batch * seq, heads * head_dim]; k, v: [batch * seq, kv_heads * head_dim]; cosine, sine:
/// [seq, head_dim / 2] float32 → [batch * seq, heads * head_dim].
torch::Tensor causal_attention(const torch::Tensor& q, const torch::Tensor& k,
                               const torch::Tensor& v, const torch::Tensor& cosine,
                               const torch::Tensor& sine, const AttentionShape& shape);

/// Replaces logits [rows, vocab] by the gradient of scale · Σ cross-entropy(logits, targets) and
/// returns the unscaled sum (nats). targets: [rows] int64. Not differentiable itself.
double cross_entropy_(torch::Tensor& logits, const torch::Tensor& targets, double scale);

/// The loss of next tokens under a teacher as a sum of terms: kernels::Distillation, with q from
/// logits [rows, vocab] (student) and p from teacher [rows, vocab] (same type). Replaces logits by
/// the gradient of scale · Σ rows and returns the unscaled sum (nats). row_weights: [rows] float32,
/// or undefined for ones. Not differentiable itself.
double distillation_(torch::Tensor& logits, const torch::Tensor& teacher,
                     const torch::Tensor& targets, const torch::Tensor& row_weights,
                     const kernels::Distillation& terms, double scale);

namespace reference {

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double epsilon,
                       torch::ScalarType compute);
torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up);
torch::Tensor causal_attention(const torch::Tensor& q, const torch::Tensor& k,
                               const torch::Tensor& v, const torch::Tensor& cosine,
                               const torch::Tensor& sine, const AttentionShape& shape);

double cross_entropy_(torch::Tensor& logits, const torch::Tensor& targets, double scale);

double distillation_(torch::Tensor& logits, const torch::Tensor& teacher,
                     const torch::Tensor& targets, const torch::Tensor& row_weights,
                     const kernels::Distillation& terms, double scale);

}  // namespace reference
}  // namespace qaas::ops
