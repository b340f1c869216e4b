#include "workers/engine/model/ops.h"

#include <cmath>

#include "workers/engine/kernels/decoder_kernels.h"
#include "workers/engine/model/element_type.h"

namespace qaas::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

int threads() { return at::get_num_threads(); }

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& x,
                               const torch::Tensor& weight, double epsilon,
                               torch::ScalarType compute) {
    const torch::Tensor input = x.contiguous();
    torch::Tensor out = torch::empty_like(input, input.options().dtype(compute));
    torch::Tensor inverse = torch::empty({input.size(0)}, input.options());  // [tokens]
    with_element_type(compute, [&]<class T>(T) {
      kernels::rms_norm_forward<T>(input.size(0), input.size(1), elements<float>(input),
                                   elements<float>(weight), static_cast<float>(epsilon),
                                   elements<T>(out), elements<float>(inverse), threads());
    });
    context->save_for_backward({input, weight, inverse});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const torch::Tensor &x = saved[0], &weight = saved[1], &inverse = saved[2];
    const torch::Tensor grad = grads[0].contiguous();
    torch::Tensor grad_x = torch::empty_like(x), grad_weight = torch::empty_like(weight);
    with_element_type(grad.scalar_type(), [&]<class T>(T) {
      kernels::rms_norm_backward<T>(x.size(0), x.size(1), elements<float>(x),
                                    elements<float>(weight), elements<float>(inverse),
                                    elements<T>(grad), nullptr, elements<float>(grad_x),
                                    elements<float>(grad_weight), threads());
    });
    return {grad_x, grad_weight, {}, {}};
  }
};

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& gate,
                               const torch::Tensor& up) {
    const torch::Tensor g = gate.contiguous(), u = up.contiguous();
    torch::Tensor out = torch::empty_like(g);
    with_element_type(g.scalar_type(), [&]<class T>(T) {
      kernels::swiglu_forward<T>(g.size(0), g.size(1), g.size(1), elements<T>(g), elements<T>(u),
                                 elements<T>(out), threads());
    });
    context->save_for_backward({g, u});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const torch::Tensor &gate = saved[0], &up = saved[1];
    const torch::Tensor grad = grads[0].contiguous();
    torch::Tensor grad_gate = torch::empty_like(gate), grad_up = torch::empty_like(up);
    with_element_type(gate.scalar_type(), [&]<class T>(T) {
      kernels::swiglu_backward<T>(gate.size(0), gate.size(1), gate.size(1), elements<T>(gate),
                                  elements<T>(up), elements<T>(grad), elements<T>(grad_gate),
                                  elements<T>(grad_up), threads());
    });
    return {grad_gate, grad_up};
  }
};

/// How the heads of a [batch * seq, heads * dim] tensor and of a [batch * heads, seq, dim] tensor
/// lie in memory.
struct HeadLayout {
  kernels::HeadsShape shape;

  kernels::HeadStrides by_token() const {
    return {shape.positions * shape.heads * shape.head_dim, shape.heads * shape.head_dim,
            shape.head_dim};
  }
  kernels::HeadStrides by_head() const {
    return {shape.heads * shape.positions * shape.head_dim, shape.head_dim,
            shape.positions * shape.head_dim};
  }
  /// [batch * seq, heads * dim] → [batch * heads, seq, dim], rotated on the way.
  torch::Tensor rotated_heads(const torch::Tensor& x, const torch::Tensor& cosine,
                              const torch::Tensor& sine) const {
    torch::Tensor out =
        torch::empty({shape.sequences * shape.heads, shape.positions, shape.head_dim}, x.options());
    with_element_type(x.scalar_type(), [&]<class T>(T) {
      kernels::rotate_heads<T>(shape, elements<float>(cosine), elements<float>(sine),
                               kernels::Rotation::kForward, elements<T>(x), by_token(),
                               elements<T>(out), by_head(), threads());
    });
    return out;
  }
  /// The gradient of rotated_heads.
  torch::Tensor unrotated_tokens(const torch::Tensor& grad, const torch::Tensor& cosine,
                                 const torch::Tensor& sine) const {
    torch::Tensor out = torch::empty(
        {shape.sequences * shape.positions, shape.heads * shape.head_dim}, grad.options());
    with_element_type(grad.scalar_type(), [&]<class T>(T) {
      kernels::rotate_heads<T>(shape, elements<float>(cosine), elements<float>(sine),
                               kernels::Rotation::kBackward, elements<T>(grad), by_head(),
                               elements<T>(out), by_token(), threads());
    });
    return out;
  }
  torch::Tensor heads(const torch::Tensor& x) const {
    return x.view({shape.sequences, shape.positions, shape.heads, shape.head_dim})
        .transpose(1, 2)
        .reshape({shape.sequences * shape.heads, shape.positions, shape.head_dim});
  }
  torch::Tensor tokens(const torch::Tensor& x) const {
    return x.view({shape.sequences, shape.heads, shape.positions, shape.head_dim})
        .transpose(1, 2)
        .reshape({shape.sequences * shape.positions, shape.heads * shape.head_dim});
  }
};

/// Query heads that share a key/value head are consecutive, so their rows are one taller matrix:
/// [batch * heads, seq, ·] is viewed as [batch * kv_heads, shared * seq, ·] for the products, and
/// the sum over sharing heads in the gradients of k and v falls out of them.
struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& q,
                               const torch::Tensor& k, const torch::Tensor& v,
                               const torch::Tensor& cosine, const torch::Tensor& sine,
                               int64_t batch, int64_t heads, int64_t kv_heads) {
    const int64_t seq = q.size(0) / batch, dim = q.size(1) / heads;
    const int64_t rows = heads / kv_heads * seq;
    const HeadLayout query{{batch, seq, heads, dim}}, key{{batch, seq, kv_heads, dim}};
    const torch::Tensor queries = query.rotated_heads(q.contiguous(), cosine, sine);
    const torch::Tensor keys = key.rotated_heads(k.contiguous(), cosine, sine);
    const torch::Tensor values = key.heads(v);
    torch::Tensor scores = torch::bmm(queries.view({batch * kv_heads, rows, dim}),
                                      keys.transpose(1, 2));  // [batch * kv_heads, rows, seq]
    with_element_type(scores.scalar_type(), [&]<class T>(T) {
      kernels::softmax_causal_forward<T>(batch * heads, seq,
                                         static_cast<float>(1.0 / std::sqrt(double(dim))),
                                         elements<T>(scores), elements<T>(scores), threads());
    });
    const torch::Tensor mixed = torch::bmm(scores, values);  // [batch * kv_heads, rows, dim]
    context->save_for_backward({queries, keys, values, scores, cosine, sine});
    context->saved_data["batch"] = batch;
    context->saved_data["heads"] = heads;
    context->saved_data["kv_heads"] = kv_heads;
    return query.tokens(mixed);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const torch::Tensor &queries = saved[0], &keys = saved[1], &values = saved[2];
    const torch::Tensor &probabilities = saved[3], &cosine = saved[4], &sine = saved[5];
    const int64_t batch = context->saved_data["batch"].toInt();
    const int64_t heads = context->saved_data["heads"].toInt();
    const int64_t kv_heads = context->saved_data["kv_heads"].toInt();
    const int64_t seq = queries.size(1), dim = queries.size(2);
    const int64_t rows = heads / kv_heads * seq;
    const HeadLayout query{{batch, seq, heads, dim}}, key{{batch, seq, kv_heads, dim}};

    // Of one sequence heads() is a strided view, which only reshape can cut anew.
    const torch::Tensor grad = query.heads(grads[0]).reshape({batch * kv_heads, rows, dim});
    const torch::Tensor grad_values = torch::bmm(probabilities.transpose(1, 2), grad);
    torch::Tensor grad_scores =
        torch::bmm(grad, values.transpose(1, 2));  // [batch * kv_heads, rows, seq]
    with_element_type(grad_scores.scalar_type(), [&]<class T>(T) {
      kernels::softmax_causal_backward<T>(batch * heads, seq,
                                          static_cast<float>(1.0 / std::sqrt(double(dim))),
                                          elements<T>(probabilities), elements<T>(grad_scores),
                                          elements<T>(grad_scores), threads());
    });
    const torch::Tensor grad_queries = torch::bmm(grad_scores, keys);
    const torch::Tensor grad_keys =
        torch::bmm(grad_scores.transpose(1, 2), queries.view({batch * kv_heads, rows, dim}));
    return {query.unrotated_tokens(grad_queries, cosine, sine),
            key.unrotated_tokens(grad_keys, cosine, sine),
            key.tokens(grad_values),
            {},
            {},
            {},
            {},
            {}};
  }
};

}  // namespace

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double epsilon,
                       torch::ScalarType compute) {
  if (!x.is_cpu()) return reference::rms_norm(x, weight, epsilon, compute);
  return RmsNormFunction::apply(x, weight, epsilon, compute);
}

torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up) {
  if (!gate.is_cpu()) return reference::swiglu(gate, up);
  return SwigluFunction::apply(gate, up);
}

torch::Tensor causal_attention(const torch::Tensor& q, const torch::Tensor& k,
                               const torch::Tensor& v, const torch::Tensor& cosine,
                               const torch::Tensor& sine, const AttentionShape& shape) {
  if (!q.is_cpu()) return reference::causal_attention(q, k, v, cosine, sine, shape);
  return AttentionFunction::apply(q, k, v, cosine, sine, shape.batch, shape.heads, shape.kv_heads);
}

double cross_entropy_(torch::Tensor& logits, const torch::Tensor& targets, double scale) {
  if (!logits.is_cpu()) return reference::cross_entropy_(logits, targets, scale);
  const torch::Tensor labels = targets.contiguous();
  torch::Tensor losses = torch::empty({logits.size(0)}, torch::kFloat32);
  with_element_type(logits.scalar_type(), [&]<class T>(T) {
    kernels::cross_entropy<T>(logits.size(0), logits.size(1), elements<T>(logits),
                              elements<int64_t>(labels), static_cast<float>(scale),
                              elements<float>(losses), elements<T>(logits), threads());
  });
  return losses.sum(torch::kFloat64).item<double>();
}

double distillation_(torch::Tensor& logits, const torch::Tensor& teacher,
                     const torch::Tensor& targets, const torch::Tensor& row_weights,
                     const kernels::Distillation& terms, double scale) {
  TORCH_CHECK(teacher.sizes() == logits.sizes() && teacher.scalar_type() == logits.scalar_type(),
              "teacher logits ", teacher.sizes(), " of ", teacher.scalar_type(),
              ", expected the student's ", logits.sizes(), " of ", logits.scalar_type());
  if (!logits.is_cpu()) {
    return reference::distillation_(logits, teacher, targets, row_weights, terms, scale);
  }
  const torch::Tensor labels = targets.contiguous(), teachers = teacher.contiguous();
  const torch::Tensor weights = row_weights.defined() ? row_weights.contiguous() : row_weights;
  torch::Tensor losses = torch::empty({logits.size(0)}, torch::kFloat32);
  with_element_type(logits.scalar_type(), [&]<class T>(T) {
    kernels::distillation<T>(
        logits.size(0), logits.size(1), elements<T>(logits), elements<T>(teachers),
        elements<int64_t>(labels), weights.defined() ? elements<float>(weights) : nullptr, terms,
        static_cast<float>(scale), elements<float>(losses), elements<T>(logits), threads());
  });
  return losses.sum(torch::kFloat64).item<double>();
}

}  // namespace qaas::ops
