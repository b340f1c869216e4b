#pragma once

#include <vector>

#include "workers/engine/quant/fake_quant_projection.h"

namespace qaas {

/// Scales and zero points of one projection as functions of two clip factors per group, learnable
/// weight clipping (OmniQuant, arXiv 2308.13137, section 3.2): the grid covers
/// [low · min(w), high · max(w)], so s = (high · max - low · min) / Q and z = -low · min / s.
/// Unlike there a factor is trained as it is, held to [0, max(1, its start)], not through a
/// sigmoid, and starts where the initialiser left the grid, so that a searched range is kept. A
/// symmetric grid has one factor, of the scale it started with.
class ClippedRange {
 public:
  /// Factors at which the projection's qparams are as they are now.
  explicit ClippedRange(const FakeQuantProjection& projection);

  /// [out, groups] float32 each: low and high, or the one of a symmetric grid.
  const std::vector<torch::Tensor>& factors() const { return factors_; }

  /// Turns the gradients that backward left at scale and zero point into those of the factors.
  void pull_gradients();
  /// Holds the factors to their bounds and sets scale and zero point from them.
  void apply();

 private:
  Qparams from_factors() const;

  Qparams master_;  // the projection's own
  AffineGrid grid_;
  torch::Tensor low_, high_;  // [out, groups]: range at factor 1; symmetric: high_ is the scale
  std::vector<torch::Tensor> factors_, bounds_;  // [out, groups]
};

}  // namespace qaas
