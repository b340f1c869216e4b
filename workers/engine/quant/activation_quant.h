#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <torch/torch.h>

#include "workers/engine/model/decoder_block.h"
#include "workers/engine/model/projection.h"
#include "workers/engine/quant/activation_quantizer.h"

/// Quantization of what flows into a projection: symmetric integers whose scale follows from the
/// values at hand (dynamic AbsMax), per token or per group of a token's inputs.
namespace qaas {

/// clamp(clip, kMinClip, 1). Gradient: identity.
torch::Tensor effective_clip(const torch::Tensor& clip);

/// clamp(round(x / s), -Q, Q) · s with s = c · max|x| / Q per group, c the effective clip; half to
/// even, float32 arithmetic, rounded once to x's type; a group of zeros stays zero.
/// x: [tokens, inputs] float32 or bfloat16; clip: [1] float32 → as x.
/// Gradients: x passes straight through where it is within the grid and not where it saturates
/// (none does at c = 1); max|x| counts as a constant. The clip factor is learned as a step size is
/// in LSQ (arXiv 1902.08153, equation 3, without its gradient scale), which for saturated inputs is
/// PACT's rule (arXiv 1805.06085): d x_hat / d c = max|x| / Q · (round(x / s) - x / s), or
/// sign(x) · max|x| where x saturates.
torch::Tensor quantize_activations_reference(const torch::Tensor& x, const torch::Tensor& clip,
                                             const ActivationGrid& grid);

/// The same in one pass each way, equal bit for bit; the clip's gradient up to the order of its
/// sum. Nothing is kept for the backward pass at a clip of 1 that does not train.
torch::Tensor quantize_activations(const torch::Tensor& x, const torch::Tensor& clip,
                                   const ActivationGrid& grid);

/// Any projection with its input quantized first. Registered: "clip", and the projection as
/// "wrapped".
class ActivationQuantProjection : public Projection {
 public:
  ActivationQuantProjection(std::shared_ptr<Projection> wrapped,
                            const ActivationQuantizer& quantizer);

  torch::Tensor forward(const torch::Tensor& x) override;
  int64_t output_size() const override { return wrapped_->output_size(); }
  torch::Tensor effective_weight() override { return wrapped_->effective_weight(); }
  std::shared_ptr<Projection> wrapped() const override { return wrapped_; }

  /// Master clip factor, [1] float32; used as effective_clip() bounds it. Train it to learn it.
  const torch::Tensor& clip() const { return clip_; }

  /// With the clip factor as it is now.
  ActivationQuantizer quantizer() const;

 private:
  std::shared_ptr<Projection> wrapped_;
  ActivationGrid grid_;
  torch::Tensor clip_;  // [1] float32
};

/// How the input of the projection of this name inside the block ("mlp.down_proj") is quantized, or
/// none.
using ActivationOf =
    std::function<std::optional<ActivationQuantizer>(const std::string& projection)>;

/// Wraps the projections that `activation_of` names, whatever form their weights have. Wrapping
/// twice is a programming error.
void apply_activation_quantization(DecoderBlock& block, const ActivationOf& activation_of);

}  // namespace qaas
