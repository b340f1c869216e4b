#pragma once

#include <torch/torch.h>

namespace qaas {

/// The type training's matrix products run in on this CPU: bfloat16 where it multiplies that
/// (AVX512-BF16 or AMX, where oneDNN is about twice as fast as float32 BLAS), else float32.
/// Masters, statistics and evaluation stay float32.
torch::ScalarType training_compute_type();

}  // namespace qaas
