#pragma once

#include <vector>

#include "workers/engine/model/projection.h"
#include "workers/engine/quant/affine.h"
#include "workers/engine/quant/quantized_weight.h"

namespace qaas {

/// A projection in training: float32 master weight and qparams, used through fake_quantize. What
/// it multiplies with equals, bit for bit, what the packed weight of to_quantized_weight() gives.
class FakeQuantProjection : public Projection {
 public:
  /// weight: float32 [out, in]; qparams: [out, in / group_size].
  FakeQuantProjection(torch::Tensor weight, Qparams qparams, const AffineGrid& grid);

  torch::Tensor forward(const torch::Tensor& x) override;
  int64_t output_size() const override { return weight_.size(0); }
  torch::Tensor effective_weight() override;

  /// Parameters by role, to give each its own learning rate. The zero point is absent from
  /// quant_parameters() of a symmetric grid.
  std::vector<torch::Tensor> weight_parameters() const { return {weight_}; }
  std::vector<torch::Tensor> quant_parameters() const;

  const torch::Tensor& weight() const { return weight_; }
  /// Masters; the zero point of a symmetric grid is not to be changed.
  const Qparams& qparams() const { return qparams_; }

  const AffineGrid& grid() const { return grid_; }
  QuantizedWeight to_quantized_weight() const;

 private:
  torch::Tensor weight_;  // [out, in] float32
  Qparams qparams_;       // [out, in / group_size] float32
  AffineGrid grid_;
};

}  // namespace qaas
