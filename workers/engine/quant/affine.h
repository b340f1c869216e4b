#pragma once

#include <cstdint>

#include <torch/torch.h>

/// The uniform affine quantizer in plain ATen: the definition every kernel is tested against.
/// EfficientQAT (arXiv 2407.11062) section 3.2; straight-through gradients as LSQ+.
namespace qaas {

/// A grid of 2^bits codes per group of `group_size` consecutive inputs of one row.
struct AffineGrid {
  int bits = 4;
  int64_t group_size = 128;
  bool symmetric = false;  ///< zero point fixed at 2^(bits-1)

  int64_t max_code() const { return (int64_t{1} << bits) - 1; }
};

/// Master qparams: float32 [rows, groups]. What is used is effective_scale / effective_zero_point.
struct Qparams {
  torch::Tensor scale;
  torch::Tensor zero_point;
};

/// `value` with the gradient of the identity in `x`.
torch::Tensor straight_through(const torch::Tensor& x, const torch::Tensor& value);

/// Smallest and largest scale in use (EfficientQAT clamps to these).
inline constexpr double kMinScale = 1e-4;
inline constexpr double kMaxScale = 1e4;

/// Round-to-nearest qparams of weight [rows, cols] float32. Asymmetric: the group's range, widened
/// to contain zero, spread over all codes. Symmetric: the smallest scale whose grid
/// [-2^(bits-1), 2^(bits-1) - 1] · s covers the group.
Qparams min_max_qparams(const torch::Tensor& weight, const AffineGrid& grid);

/// clamp(s, 1e-4, 1e4) rounded to fp16, as the checkpoint stores it. Gradient: identity.
torch::Tensor effective_scale(const torch::Tensor& scale);

/// clamp(round(z), 0, 2^bits - 1). Gradient: identity.
torch::Tensor effective_zero_point(const torch::Tensor& zero_point, int bits);

/// (clamp(round(w / s) + z, 0, Q) - z) · s with effective s and z, float32 [rows, cols].
/// Gradients: rounding passes straight through, the clamp of the codes does not.
torch::Tensor fake_quantize_reference(const torch::Tensor& weight, const Qparams& qparams,
                                      const AffineGrid& grid);

/// The same in one pass, without keeping intermediates, cast once to `compute`. Equal to the
/// reference bit for bit; gradients equal up to the order of the group sums. Differentiable in
/// weight and scale, and in zero_point unless the grid is symmetric. CPU tensors use
/// kernels::fake_quantize_*, others the reference.
torch::Tensor fake_quantize(const torch::Tensor& weight, const Qparams& qparams,
                            const AffineGrid& grid, torch::ScalarType compute);

}  // namespace qaas
