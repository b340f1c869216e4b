#include "workers/engine/quant/packed_projection.h"

#include <utility>

#include "workers/engine/kernels/quantization_kernels.h"
#include "workers/engine/model/element_type.h"

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

/// Effective qparams: clamped and rounded as they will be stored, [out, groups] each.
struct UsedQparams {
  torch::Tensor scale, zero_point;

  UsedQparams(const torch::Tensor& scale_master, const torch::Tensor& zero_point_master, int bits)
      : scale(torch::empty_like(scale_master)), zero_point(torch::empty_like(zero_point_master)) {
    kernels::effective_qparams(scale_master.data_ptr<float>(), zero_point_master.data_ptr<float>(),
                               scale.numel(), bits, scale.data_ptr<float>(),
                               zero_point.data_ptr<float>());
  }
};

/// y = x·Wᵀ with W dequantized for the product and again for its gradient: no dense weight is
/// kept. Gradients: x; scale through d loss / d scale = Σ_group grad_W · (code - z) (EfficientQAT,
/// E2E-QP); zero point through -scale · Σ_group grad_W, since the codes do not move with it. Both
/// pass straight through the rounding and clamping of their masters.
struct PackedProduct : torch::autograd::Function<PackedProduct> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& x,
                               const torch::Tensor& scale, const torch::Tensor& zero_point,
                               const torch::Tensor& packed, int64_t group_size, int64_t bits) {
    const UsedQparams used(scale, zero_point, static_cast<int>(bits));
    const kernels::GroupedMatrix shape{scale.size(0), scale.size(1) * group_size, group_size,
                                       static_cast<int>(bits)};
    context->save_for_backward({x, used.scale, used.zero_point, packed});
    context->saved_data["group_size"] = group_size;
    context->saved_data["bits"] = bits;
    return torch::mm(x,
                     dequantize(packed, used.zero_point, used.scale, shape, x.scalar_type()).t());
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const torch::Tensor &x = saved[0], &scale = saved[1], &zero = saved[2], &packed = saved[3];
    const int64_t group_size = context->saved_data["group_size"].toInt();
    const kernels::GroupedMatrix shape{scale.size(0), scale.size(1) * group_size, group_size,
                                       static_cast<int>(context->saved_data["bits"].toInt())};
    const torch::Tensor grad = grads[0].contiguous();  // [tokens, out]
    torch::Tensor grad_x, grad_scale, grad_zero;
    if (context->needs_input_grad(0)) {
      grad_x = torch::mm(grad, dequantize(packed, zero, scale, shape, grad.scalar_type()));
    }
    const bool scale_trains = context->needs_input_grad(1);
    const bool zero_trains = context->needs_input_grad(2);
    if (scale_trains || zero_trains) {
      const torch::Tensor grad_weight = torch::mm(grad.t(), x).contiguous();  // [out, in]
      const auto* words = reinterpret_cast<const uint32_t*>(packed.data_ptr<int32_t>());
      const int threads = at::get_num_threads();
      if (scale_trains) grad_scale = torch::empty_like(scale);
      if (zero_trains) grad_zero = torch::empty_like(zero);
      with_element_type(grad_weight.scalar_type(), [&]<class T>(T) {
        if (scale_trains) {
          kernels::packed_scale_gradient(shape, words, zero.data_ptr<float>(),
                                         elements<T>(grad_weight), grad_scale.data_ptr<float>(),
                                         threads);
        }
        if (zero_trains) {
          kernels::packed_zero_point_gradient(shape, scale.data_ptr<float>(),
                                              elements<T>(grad_weight), grad_zero.data_ptr<float>(),
                                              threads);
        }
      });
    }
    return {grad_x, grad_scale, grad_zero, {}, {}, {}};
  }
};

}  // namespace

PackedProjection::PackedProjection(QuantizedWeight weight) : weight_(std::move(weight)) {
  const int64_t groups = weight_.cols / weight_.group_size;
  const int64_t words = weight_.cols * weight_.bits / 32;
  packed_ = torch::from_blob(weight_.packed.data(), {weight_.rows, words}, torch::kInt32);
  scale_ = register_parameter(
      "scale",
      torch::from_blob(weight_.scales.data(), {weight_.rows, groups}, torch::kFloat32).clone(),
      /*requires_grad=*/false);
  zero_point_ = register_parameter(
      "zero_point",
      torch::from_blob(weight_.zero_points.data(), {weight_.rows, groups}, torch::kUInt8)
          .to(torch::kFloat32),
      /*requires_grad=*/false);
}

torch::Tensor PackedProjection::forward(const torch::Tensor& x) {
  return PackedProduct::apply(x, scale_, zero_point_, packed_, weight_.group_size,
                              static_cast<int64_t>(weight_.bits));
}

torch::Tensor PackedProjection::effective_rows(int64_t first, int64_t count) {
  const torch::NoGradGuard no_grad;
  const UsedQparams used(scale_.narrow(0, first, count), zero_point_.narrow(0, first, count),
                         weight_.bits);
  return dequantize(packed_.narrow(0, first, count), used.zero_point, used.scale,
                    {count, weight_.cols, weight_.group_size, weight_.bits}, torch::kFloat32);
}

QuantizedWeight PackedProjection::to_quantized_weight() const {
  const torch::NoGradGuard no_grad;
  QuantizedWeight result = weight_;
  const UsedQparams used(scale_, zero_point_, weight_.bits);
  const auto count = static_cast<size_t>(used.scale.numel());
  result.scales.assign(used.scale.data_ptr<float>(), used.scale.data_ptr<float>() + count);
  result.zero_points.assign(used.zero_point.data_ptr<float>(),
                            used.zero_point.data_ptr<float>() + count);
  return result;
}

}  // namespace qaas
