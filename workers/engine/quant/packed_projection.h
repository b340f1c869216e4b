#pragma once

#include "workers/engine/model/projection.h"
#include "workers/engine/quant/quantized_weight.h"

namespace qaas {

/// A projection whose codes are fixed: packed words, trainable scales and zero points. The dense
/// weight exists only during a product.
class PackedProjection : public Projection {
 public:
  explicit PackedProjection(QuantizedWeight weight);

  torch::Tensor forward(const torch::Tensor& x) override;
  int64_t output_size() const override { return weight_.rows; }
  torch::Tensor effective_weight() override { return effective_rows(0, weight_.rows); }
  torch::Tensor effective_rows(int64_t first, int64_t count) override;

  int bits() const { return weight_.bits; }

  /// Master scales, float32 [out, groups]; set requires_grad to train them (E2E-QP). They are used
  /// as effective_scale() rounds them.
  const torch::Tensor& scale() const { return scale_; }

  /// Master zero points, float32 [out, groups], used as effective_zero_point() rounds them; those
  /// of a symmetric grid must stay as they are.
  const torch::Tensor& zero_point() const { return zero_point_; }

  bool symmetric() const { return weight_.symmetric; }

  /// The weight with the scales and zero points as they are now.
  QuantizedWeight to_quantized_weight() const;

 private:
  QuantizedWeight weight_;    // qparams: as given; the live ones are scale_ and zero_point_
  torch::Tensor packed_;      // [out, words] int32
  torch::Tensor scale_;       // [out, groups] float32
  torch::Tensor zero_point_;  // [out, groups] float32
};

}  // namespace qaas
