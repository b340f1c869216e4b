#include "workers/engine/quant/fake_quant_projection.h"

#include <utility>

#include "workers/engine/kernels/quantization_kernels.h"
#include "workers/engine/quant/bit_packing.h"

namespace qaas {

FakeQuantProjection::FakeQuantProjection(torch::Tensor weight, Qparams qparams,
                                         const AffineGrid& grid)
    : weight_(register_parameter("weight", std::move(weight), /*requires_grad=*/false)),
      qparams_{register_parameter("scale", std::move(qparams.scale), /*requires_grad=*/false),
               register_parameter("zero_point", std::move(qparams.zero_point),
                                  /*requires_grad=*/false)},
      grid_(grid) {
  TORCH_CHECK(
      weight_.is_contiguous() && qparams_.scale.numel() * grid.group_size == weight_.numel(),
      "qparams ", qparams_.scale.sizes(), " do not fit weight ", weight_.sizes(), " at group size ",
      grid.group_size);
}

torch::Tensor FakeQuantProjection::forward(const torch::Tensor& x) {
  return torch::mm(x, fake_quantize(weight_, qparams_, grid_, x.scalar_type()).t());
}

torch::Tensor FakeQuantProjection::effective_weight() {
  const torch::NoGradGuard no_grad;
  return fake_quantize(weight_, qparams_, grid_, torch::kFloat32);
}

std::vector<torch::Tensor> FakeQuantProjection::quant_parameters() const {
  if (grid_.symmetric) return {qparams_.scale};
  return {qparams_.scale, qparams_.zero_point};
}

QuantizedWeight FakeQuantProjection::to_quantized_weight() const {
  const torch::NoGradGuard no_grad;
  const torch::Tensor weight = weight_.detach().cpu();  // [out, in]
  const torch::Tensor scale = effective_scale(qparams_.scale.detach()).cpu().contiguous();
  const torch::Tensor zero =
      effective_zero_point(qparams_.zero_point.detach(), grid_.bits).cpu().contiguous();
  QuantizedWeight result{.rows = weight.size(0),
                         .cols = weight.size(1),
                         .bits = grid_.bits,
                         .group_size = grid_.group_size,
                         .symmetric = grid_.symmetric};
  std::vector<uint8_t> codes(static_cast<size_t>(weight.numel()));
  kernels::quantize({result.rows, result.cols, result.group_size, result.bits},
                    weight.data_ptr<float>(), scale.data_ptr<float>(), zero.data_ptr<float>(),
                    codes.data(), at::get_num_threads());
  result.packed = pack_rows(codes, result.rows, result.cols, result.bits);
  result.scales.assign(scale.data_ptr<float>(), scale.data_ptr<float>() + scale.numel());
  result.zero_points.assign(zero.data_ptr<float>(), zero.data_ptr<float>() + zero.numel());
  return result;
}

}  // namespace qaas
