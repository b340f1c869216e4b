#pragma once

#include <torch/torch.h>

#include "workers/engine/quant/affine.h"

namespace qaas {

/// Qparams of weight [rows, cols] float32 (on the CPU, contiguous) whose groups are clipped where
/// that lowers the squared error
///   sum over the group of importance[col] · (fake_quantize(w) - w)²,
/// measured with scales and zero points as they are stored. importance: [cols] float32, not
/// negative, for instance the mean square of each input (the diagonal of the Hessian); undefined
/// means all ones. The candidates and their order are those of kernels::clip_search: never worse
/// than min_max_qparams by this measure, same bytes on every CPU and thread count.
Qparams clip_search_qparams(const torch::Tensor& weight, const AffineGrid& grid,
                            const torch::Tensor& importance);

}  // namespace qaas
