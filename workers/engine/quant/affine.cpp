#include "workers/engine/quant/affine.h"

#include "workers/engine/kernels/quantization_kernels.h"
#include "workers/engine/model/element_type.h"

namespace qaas {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Value `value` with the gradient of the identity in `x`.
struct StraightThrough : torch::autograd::Function<StraightThrough> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& x,
                               const torch::Tensor& value) {
    return value.clone();
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    return {grads[0], {}};
  }
};

kernels::GroupedMatrix grouped(const torch::Tensor& weight, int64_t group_size, int64_t bits) {
  return {weight.size(0), weight.size(1), group_size, static_cast<int>(bits)};
}

/// Inputs: weight, scale, zero_point (masters); then the grid and the output type.
struct FusedFakeQuantize : torch::autograd::Function<FusedFakeQuantize> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& weight,
                               const torch::Tensor& scale, const torch::Tensor& zero_point,
                               int64_t bits, int64_t group_size, bool symmetric,
                               torch::ScalarType compute) {
    torch::Tensor used_scale = torch::empty_like(scale);      // [rows, groups]
    torch::Tensor used_zero = torch::empty_like(zero_point);  // [rows, groups]
    kernels::effective_qparams(scale.data_ptr<float>(), zero_point.data_ptr<float>(), scale.numel(),
                               static_cast<int>(bits), used_scale.data_ptr<float>(),
                               used_zero.data_ptr<float>());
    torch::Tensor weight_hat = torch::empty_like(weight, weight.options().dtype(compute));
    const auto shape = grouped(weight, group_size, bits);
    const int threads = at::get_num_threads();
    with_element_type(compute, [&]<class T>(T) {
      kernels::fake_quantize_forward(shape, weight.data_ptr<float>(), used_scale.data_ptr<float>(),
                                     used_zero.data_ptr<float>(), elements<T>(weight_hat), threads);
    });
    context->save_for_backward({weight, used_scale, used_zero});
    context->saved_data["bits"] = bits;
    context->saved_data["group_size"] = group_size;
    context->saved_data["symmetric"] = symmetric;
    return weight_hat;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const torch::Tensor& weight = saved[0];
    const torch::Tensor& scale = saved[1];
    const torch::Tensor& zero_point = saved[2];
    const bool symmetric = context->saved_data["symmetric"].toBool();
    const auto shape = grouped(weight, context->saved_data["group_size"].toInt(),
                               context->saved_data["bits"].toInt());
    const torch::Tensor grad = grads[0].contiguous();  // [rows, cols]
    torch::Tensor grad_weight = torch::empty_like(weight);
    torch::Tensor grad_scale = torch::empty_like(scale);
    torch::Tensor grad_zero = symmetric ? torch::Tensor() : torch::empty_like(zero_point);
    float* grad_zero_data = symmetric ? nullptr : grad_zero.data_ptr<float>();
    const int threads = at::get_num_threads();
    with_element_type(grad.scalar_type(), [&]<class T>(T) {
      kernels::fake_quantize_backward(shape, weight.data_ptr<float>(), scale.data_ptr<float>(),
                                      zero_point.data_ptr<float>(), elements<T>(grad),
                                      grad_weight.data_ptr<float>(), grad_scale.data_ptr<float>(),
                                      grad_zero_data, threads);
    });
    return {grad_weight, grad_scale, grad_zero, {}, {}, {}, {}};
  }
};

}  // namespace

torch::Tensor straight_through(const torch::Tensor& x, const torch::Tensor& value) {
  return StraightThrough::apply(x, value);
}

Qparams min_max_qparams(const torch::Tensor& weight, const AffineGrid& grid) {
  const int64_t rows = weight.size(0), cols = weight.size(1);
  TORCH_CHECK(cols % grid.group_size == 0, "group size ", grid.group_size, " does not divide ",
              cols, " inputs");
  const torch::Tensor groups = weight.detach().reshape({rows, -1, grid.group_size});
  const torch::Tensor low = groups.amin(-1).clamp_max(0);   // [rows, groups]
  const torch::Tensor high = groups.amax(-1).clamp_min(0);  // [rows, groups]
  if (grid.symmetric) {
    const double half = static_cast<double>(int64_t{1} << (grid.bits - 1));
    const torch::Tensor scale =
        torch::maximum(-low / half, high / (half - 1)).clamp(kMinScale, kMaxScale);
    return {scale, torch::full_like(scale, half)};
  }
  const torch::Tensor scale =
      ((high - low) / static_cast<double>(grid.max_code())).clamp(kMinScale, kMaxScale);
  return {scale, torch::round(-low / scale).clamp(0, static_cast<double>(grid.max_code()))};
}

torch::Tensor effective_scale(const torch::Tensor& scale) {
  return straight_through(
      scale, scale.detach().clamp(kMinScale, kMaxScale).to(torch::kFloat16).to(torch::kFloat32));
}

torch::Tensor effective_zero_point(const torch::Tensor& zero_point, int bits) {
  const auto max_code = static_cast<double>((int64_t{1} << bits) - 1);
  return straight_through(zero_point, torch::round(zero_point.detach()).clamp(0, max_code));
}

torch::Tensor fake_quantize_reference(const torch::Tensor& weight, const Qparams& qparams,
                                      const AffineGrid& grid) {
  const torch::Tensor groups = weight.reshape({weight.size(0), -1, grid.group_size});
  const torch::Tensor scale = effective_scale(qparams.scale).unsqueeze(-1);  // [rows, groups, 1]
  const torch::Tensor zero =
      effective_zero_point(qparams.zero_point, grid.bits).unsqueeze(-1);  // [rows, groups, 1]
  const torch::Tensor steps = groups / scale;
  const torch::Tensor code = (straight_through(steps, torch::round(steps.detach())) + zero)
                                 .clamp(0, static_cast<double>(grid.max_code()));
  return ((code - zero) * scale).view(weight.sizes());
}

torch::Tensor fake_quantize(const torch::Tensor& weight, const Qparams& qparams,
                            const AffineGrid& grid, torch::ScalarType compute) {
  if (!weight.is_cpu()) return fake_quantize_reference(weight, qparams, grid).to(compute);
  return FusedFakeQuantize::apply(weight, qparams.scale, qparams.zero_point, grid.bits,
                                  grid.group_size, grid.symmetric, compute);
}

}  // namespace qaas
