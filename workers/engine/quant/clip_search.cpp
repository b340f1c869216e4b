#include "workers/engine/quant/clip_search.h"

#include "workers/engine/kernels/quantization_kernels.h"

namespace qaas {

Qparams clip_search_qparams(const torch::Tensor& weight, const AffineGrid& grid,
                            const torch::Tensor& importance) {
  const int64_t rows = weight.size(0), cols = weight.size(1);
  TORCH_CHECK(cols % grid.group_size == 0, "group size ", grid.group_size, " does not divide ",
              cols, " inputs");
  TORCH_CHECK(weight.is_contiguous() && weight.is_cpu(), "the weight to search must be contiguous");
  torch::Tensor weights_of_inputs;  // [cols] float32
  if (importance.defined()) {
    TORCH_CHECK(importance.numel() == cols, "importance of ", importance.numel(), " inputs, got ",
                cols, " inputs");
    weights_of_inputs = importance.detach().to(torch::kFloat32).contiguous();
  }
  const torch::Tensor scale = torch::empty({rows, cols / grid.group_size});  // [rows, groups]
  const torch::Tensor zero_point = torch::empty_like(scale);                 // [rows, groups]
  kernels::clip_search({rows, cols, grid.group_size, grid.bits},
                       grid.symmetric ? kernels::ZeroPoint::kMiddle : kernels::ZeroPoint::kFree,
                       weight.data_ptr<float>(),
                       weights_of_inputs.defined() ? weights_of_inputs.data_ptr<float>() : nullptr,
                       scale.data_ptr<float>(), zero_point.data_ptr<float>(),
                       at::get_num_threads());
  return {scale, zero_point};
}

}  // namespace qaas
