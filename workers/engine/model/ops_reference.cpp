#include <cmath>
#include <limits>

#include "workers/engine/model/ops.h"

namespace qaas::ops::reference {
namespace {

/// x: [batch, seq, heads, head_dim] → same.
torch::Tensor rotate(const torch::Tensor& x, const torch::Tensor& cosine,
                     const torch::Tensor& sine) {
  const int64_t half = x.size(-1) / 2;
  const torch::Tensor wide = x.to(torch::kFloat32);
  const torch::Tensor low = wide.narrow(-1, 0, half);      // [batch, seq, heads, half]
  const torch::Tensor high = wide.narrow(-1, half, half);  // [batch, seq, heads, half]
  const torch::Tensor c = cosine.unsqueeze(1);             // [seq, 1, half]
  const torch::Tensor s = sine.unsqueeze(1);               // [seq, 1, half]
  return torch::cat({low * c - high * s, high * c + low * s}, -1).to(x.scalar_type());
}

}  // namespace

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double epsilon,
                       torch::ScalarType compute) {
  const torch::Tensor inverse = torch::rsqrt(x.square().mean(-1, /*keepdim=*/true) + epsilon);
  return (x * inverse * weight).to(compute);
}

torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up) {
  return torch::silu(gate) * up;
}

torch::Tensor causal_attention(const torch::Tensor& q, const torch::Tensor& k,
                               const torch::Tensor& v, const torch::Tensor& cosine,
                               const torch::Tensor& sine, const AttentionShape& shape) {
  const int64_t seq = q.size(0) / shape.batch, dim = q.size(1) / shape.heads;
  const auto heads_of = [&](const torch::Tensor& x, int64_t heads) {
    return x.view({shape.batch, seq, heads, dim});
  };
  // [batch, seq, heads, dim] → [batch * heads, seq, dim], key/value heads repeated.
  const auto per_head = [&](const torch::Tensor& x) {
    return x.transpose(1, 2)
        .repeat_interleave(shape.heads / x.size(2), 1)
        .reshape({shape.batch * shape.heads, seq, dim});
  };
  const torch::Tensor queries = per_head(rotate(heads_of(q, shape.heads), cosine, sine));
  const torch::Tensor keys = per_head(rotate(heads_of(k, shape.kv_heads), cosine, sine));
  const torch::Tensor values = per_head(heads_of(v, shape.kv_heads));
  const torch::Tensor scores = torch::bmm(queries, keys.transpose(1, 2)).to(torch::kFloat32) /
                               std::sqrt(static_cast<double>(dim));  // [batch * heads, seq, seq]
  const torch::Tensor future =
      torch::ones({seq, seq}, scores.options().dtype(torch::kBool)).triu(1);
  const torch::Tensor probabilities =
      torch::softmax(scores.masked_fill(future, -std::numeric_limits<float>::infinity()), -1);
  return torch::bmm(probabilities.to(q.scalar_type()), values)
      .view({shape.batch, shape.heads, seq, dim})
      .transpose(1, 2)
      .reshape({shape.batch * seq, shape.heads * dim});
}

double cross_entropy_(torch::Tensor& logits, const torch::Tensor& targets, double scale) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor rows = targets.unsqueeze(1);  // [rows, 1]
  const torch::Tensor log_probabilities = torch::log_softmax(logits.to(torch::kFloat32), -1);
  const double sum = -log_probabilities.gather(1, rows).sum(torch::kFloat64).item<double>();
  torch::Tensor gradient = log_probabilities.exp();
  gradient.scatter_add_(1, rows, torch::full(rows.sizes(), -1.0, gradient.options()));
  logits.copy_(gradient.mul_(scale));
  return sum;
}

double distillation_(torch::Tensor& logits, const torch::Tensor& teacher,
                     const torch::Tensor& targets, const torch::Tensor& row_weights,
                     const kernels::Distillation& terms, double scale) {
  // In float64: terms cancel in the gradients, and this is what others are measured against.
  const torch::AutoGradMode with_grad(true);
  const torch::Tensor leaf = logits.detach().to(torch::kFloat64).requires_grad_(true);
  const double heat = 1.0 / terms.temperature, beta = terms.beta;
  const torch::Tensor log_q = torch::log_softmax(leaf * heat, -1);  // [rows, vocab]
  const torch::Tensor log_p =
      torch::log_softmax(teacher.detach().to(torch::kFloat64) * heat, -1);  // [rows, vocab]
  const torch::Tensor q = log_q.exp(), p = log_p.exp();                     // [rows, vocab]
  torch::Tensor soft = terms.forward_kl * (p * (log_p - log_q)).sum(-1) +
                       terms.reverse_kl * (q * (log_q - log_p)).sum(-1) -
                       terms.teacher_entropy * (p * log_p).sum(-1);  // [rows]
  if (terms.jensen_shannon != 0) {
    const torch::Tensor log_m =
        torch::logaddexp(log_p + std::log(beta), log_q + std::log1p(-beta));  // [rows, vocab]
    soft = soft + terms.jensen_shannon * (beta * (p * (log_p - log_m)).sum(-1) +
                                          (1.0 - beta) * (q * (log_q - log_m)).sum(-1));
  }
  if (row_weights.defined()) soft = soft * row_weights;
  const torch::Tensor hard =
      -torch::log_softmax(leaf, -1).gather(1, targets.unsqueeze(1)).squeeze(1);  // [rows]
  const torch::Tensor sum = (soft + terms.cross_entropy * hard).sum();
  sum.backward();
  logits.copy_(leaf.grad() * scale);
  return sum.item<double>();
}

}  // namespace qaas::ops::reference
