#pragma once

#include <torch/torch.h>

namespace qaas {

/// The type training's matrix products run in on this machine: bfloat16 where the hardware
/// multiplies it (GPU; CPUs with AVX512-BF16 or AMX, where oneDNN is several times faster than
/// float32 BLAS), else float32. Masters, statistics and evaluation stay float32.
torch::ScalarType training_compute_type();

}  // namespace qaas
