#include "workers/engine/quant/packed_projection.h"

#include <utility>

#include "workers/engine/kernels/quantization_kernels.h"
#include "workers/engine/model/element_type.h"
#include "workers/engine/quant/affine.h"

namespace qaas {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The weight matrix from packed codes, [out, in] of `type`.
torch::Tensor dequantize(const torch::Tensor& packed, const torch::Tensor& zero,
                         const torch::Tensor& scale, const kernels::GroupedMatrix& shape,
                         torch::ScalarType type) {
  torch::Tensor weight = torch::empty({shape.rows, shape.cols}, torch::dtype(type));
  const auto* words = reinterpret_cast<const uint32_t*>(packed.data_ptr<int32_t>());
  const int threads = at::get_num_threads();
  with_element_type(type, [&]<class T>(T) {
    kernels::unpack_dequantize(shape, words, scale.data_ptr<float>(), zero.data_ptr<float>(),
                               elements<T>(weight), threads);
  });
  return weight;
}

/// y = x·Wᵀ with W dequantized for the product and again for its gradient: no dense weight is
/// kept. Gradients: x, and scale through d loss / d scale = Σ_group grad_W · (code - z)
/// (EfficientQAT, E2E-QP).
struct PackedProduct : torch::autograd::Function<PackedProduct> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& x,
                               const torch::Tensor& scale, const torch::Tensor& packed,
                               const torch::Tensor& zero, int64_t group_size, int64_t bits) {
    const torch::Tensor contiguous_scale = scale.contiguous();
    const kernels::GroupedMatrix shape{scale.size(0), scale.size(1) * group_size, group_size,
                                       static_cast<int>(bits)};
    context->save_for_backward({x, contiguous_scale, packed, zero});
    context->saved_data["group_size"] = group_size;
    context->saved_data["bits"] = bits;
    return torch::mm(x, dequantize(packed, zero, contiguous_scale, shape, x.scalar_type()).t());
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const torch::Tensor &x = saved[0], &scale = saved[1], &packed = saved[2], &zero = saved[3];
    const int64_t group_size = context->saved_data["group_size"].toInt();
    const kernels::GroupedMatrix shape{scale.size(0), scale.size(1) * group_size, group_size,
                                       static_cast<int>(context->saved_data["bits"].toInt())};
    const torch::Tensor grad = grads[0].contiguous();  // [tokens, out]
    torch::Tensor grad_x;
    if (context->needs_input_grad(0)) {
      grad_x = torch::mm(grad, dequantize(packed, zero, scale, shape, grad.scalar_type()));
    }
    torch::Tensor grad_scale;
    if (context->needs_input_grad(1)) {
      const torch::Tensor grad_weight = torch::mm(grad.t(), x).contiguous();  // [out, in]
      grad_scale = torch::empty_like(scale);
      const auto* words = reinterpret_cast<const uint32_t*>(packed.data_ptr<int32_t>());
      const int threads = at::get_num_threads();
      with_element_type(grad_weight.scalar_type(), [&]<class T>(T) {
        kernels::packed_scale_gradient(shape, words, zero.data_ptr<float>(),
                                       elements<T>(grad_weight), grad_scale.data_ptr<float>(),
                                       threads);
      });
    }
    return {grad_x, grad_scale, {}, {}, {}, {}};
  }
};

}  // namespace

PackedProjection::PackedProjection(QuantizedWeight weight) : weight_(std::move(weight)) {
  const int64_t groups = weight_.cols / weight_.group_size;
  const int64_t words = weight_.cols * weight_.bits / 32;
  packed_ = torch::from_blob(weight_.packed.data(), {weight_.rows, words}, torch::kInt32);
  zero_ = torch::from_blob(weight_.zero_points.data(), {weight_.rows, groups}, torch::kUInt8)
              .to(torch::kFloat32);
  scale_ = register_parameter(
      "scale",
      torch::from_blob(weight_.scales.data(), {weight_.rows, groups}, torch::kFloat32).clone(),
      /*requires_grad=*/false);
}

torch::Tensor PackedProjection::forward(const torch::Tensor& x) {
  return PackedProduct::apply(x, effective_scale(scale_), packed_, zero_, weight_.group_size,
                              static_cast<int64_t>(weight_.bits));
}

torch::Tensor PackedProjection::effective_weight() {
  const torch::NoGradGuard no_grad;
  return dequantize(packed_, zero_, effective_scale(scale_).contiguous(),
                    {weight_.rows, weight_.cols, weight_.group_size, weight_.bits},
                    torch::kFloat32);
}

QuantizedWeight PackedProjection::to_quantized_weight() const {
  const torch::NoGradGuard no_grad;
  QuantizedWeight result = weight_;
  const torch::Tensor scale = effective_scale(scale_.detach()).contiguous();
  result.scales.assign(scale.data_ptr<float>(), scale.data_ptr<float>() + scale.numel());
  return result;
}

}  // namespace qaas
