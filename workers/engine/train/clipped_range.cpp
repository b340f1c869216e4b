#include "workers/engine/train/clipped_range.h"

namespace qaas {
namespace {

/// numerator / denominator, 1 where the denominator is 0.
torch::Tensor ratio(const torch::Tensor& numerator, const torch::Tensor& denominator) {
  const torch::Tensor none = denominator == 0;
  return torch::where(none, torch::ones_like(numerator),
                      numerator / denominator.masked_fill(none, 1));
}

}  // namespace

ClippedRange::ClippedRange(const FakeQuantProjection& projection)
    : master_(projection.qparams()), grid_(projection.grid()) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor scale = effective_scale(master_.scale.detach());  // [out, groups]
  master_.scale.requires_grad_(true);
  if (grid_.symmetric) {
    high_ = scale;
    factors_ = {torch::ones_like(scale)};
  } else {
    const torch::Tensor zero =
        effective_zero_point(master_.zero_point.detach(), grid_.bits);  // [out, groups]
    master_.zero_point.requires_grad_(true);
    const torch::Tensor groups =
        projection.weight().detach().view({scale.size(0), scale.size(1), grid_.group_size});
    const torch::Tensor low = -zero * scale;  // [out, groups], the range as it starts
    const torch::Tensor high = (static_cast<double>(grid_.max_code()) - zero) * scale;
    low_ = groups.amin(-1).clamp_max(0);
    low_ = torch::where(low_ < 0, low_, low);
    high_ = groups.amax(-1).clamp_min(0);
    high_ = torch::where(high_ > 0, high_, high);
    factors_ = {ratio(low, low_), ratio(high, high_)};
  }
  for (const torch::Tensor& factor : factors_) bounds_.push_back(factor.clamp_min(1));
}

Qparams ClippedRange::from_factors() const {
  if (grid_.symmetric) return {factors_[0] * high_, master_.zero_point};
  const torch::Tensor low = factors_[0] * low_;
  const torch::Tensor high = factors_[1] * high_;
  const torch::Tensor scale =
      ((high - low) / static_cast<double>(grid_.max_code())).clamp_min(kMinScale);
  return {scale, -low / scale};
}

void ClippedRange::pull_gradients() {
  const torch::AutoGradMode with_grad(true);
  const Qparams qparams = from_factors();
  torch::Tensor& of_scale = master_.scale.mutable_grad();
  if (grid_.symmetric) {
    torch::autograd::backward({qparams.scale}, {of_scale});
  } else {
    torch::Tensor& of_zero = master_.zero_point.mutable_grad();
    torch::autograd::backward({qparams.scale, qparams.zero_point}, {of_scale, of_zero});
    of_zero.reset();
  }
  of_scale.reset();
}

void ClippedRange::apply() {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < factors_.size(); ++i) {
    factors_[i].copy_(torch::minimum(factors_[i], bounds_[i]).clamp_min(0));
  }
  const Qparams qparams = from_factors();
  master_.scale.copy_(qparams.scale);
  if (!grid_.symmetric) master_.zero_point.copy_(qparams.zero_point);
}

}  // namespace qaas
