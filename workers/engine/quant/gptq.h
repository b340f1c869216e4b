#pragma once

#include <cstdint>

#include <absl/status/statusor.h>
#include <torch/torch.h>

#include "workers/engine/quant/affine.h"

/// GPTQ (Frantar et al., arXiv 2210.17323): columns are rounded one after the other, and what each
/// one's rounding does to the outputs is compensated in the columns still to come.
namespace qaas {

struct GptqOptions {
  /// Added to the Hessian's diagonal, as a share of its mean; the paper's. Raised tenfold, at most
  /// to 10, while the Hessian is not positive definite.
  double damping = 0.01;
  /// Columns by falling diagonal of the Hessian instead of from left to right. Groups stay those of
  /// the weight as it is ("static groups"), so that formats and kernels see no permutation.
  bool activation_order = false;
  int64_t block_columns = 128;  ///< columns between two updates of all the rest; any gives the same
};

/// H = 2/n · Σ x·xᵀ over the n inputs of a projection seen so far. Not thread-safe.
class HessianAccumulator {
 public:
  explicit HessianAccumulator(int64_t inputs);

  /// x: [tokens, inputs] of any floating type; products and sums in float32.
  void add(const torch::Tensor& x);

  int64_t tokens() const { return tokens_; }
  /// [inputs, inputs] float32; zeros if nothing was added.
  torch::Tensor hessian() const;

 private:
  torch::Tensor sum_;  // [inputs, inputs] float32, valid on and below the diagonal
  int64_t tokens_ = 0;
};

/// A Hessian made ready for any number of weights that share their input.
struct GptqFactor {
  torch::Tensor order;  ///< [inputs] int64: column in the order of rounding → column of the weight
  torch::Tensor upper;  ///< [inputs, inputs] float32 upper triangular U, H⁻¹ = UᵀU, in that order
  double damping = 0;  ///< what it took
};

/// Inverts `hessian` [inputs, inputs] float32, damped. Inputs that were always zero are decoupled
/// from the rest: their columns are rounded to nearest. kInvalidArgument if it holds NaN or
/// infinities (activations overflow), kInternal if no damping up to 10 makes it positive definite.
absl::StatusOr<GptqFactor> factor_hessian(const torch::Tensor& hessian, const GptqOptions& options);

/// The weight [out, in] float32 with each column as it was when its turn to be rounded came.
/// fake_quantize(result, qparams, grid) is GPTQ's result, exactly; the result itself can go on
/// training. Uses the scales and zero points as stored. Deterministic for a thread count.
torch::Tensor gptq_weights(const torch::Tensor& weight, const GptqFactor& factor,
                           const Qparams& qparams, const AffineGrid& grid,
                           const GptqOptions& options);

}  // namespace qaas
