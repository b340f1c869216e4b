#include "workers/engine/train/block_ap_parameters.h"

#include <memory>

#include "workers/engine/quant/activation_quant.h"

namespace qaas {
namespace {

bool trains_qparams(BlockApTrainable trainable) {
  return trainable == BlockApTrainable::kScaleZero ||
         trainable == BlockApTrainable::kScaleZeroRounding ||
         trainable == BlockApTrainable::kScaleZeroWeight;
}

bool trains_rounding(BlockApTrainable trainable) {
  return trainable == BlockApTrainable::kRounding ||
         trainable == BlockApTrainable::kScaleZeroRounding;
}

bool trains_weights(BlockApTrainable trainable) {
  return trainable == BlockApTrainable::kWeight || trainable == BlockApTrainable::kScaleZeroWeight;
}

}  // namespace

BlockApParameters::BlockApParameters(DecoderBlock& block, const BlockApOptions& options) {
  for (const auto& [name, projection] : block->projections()) {
    const auto activation = std::dynamic_pointer_cast<ActivationQuantProjection>(projection);
    if (activation != nullptr) train(activation->clip(), options.activation_clip);
    const auto fake = weight_as<FakeQuantProjection>(projection);
    if (fake != nullptr) add(*fake, options);  // others keep full precision: not trained
  }
  if (!trains_weights(options.trainable)) return;
  for (const auto& [name, norm] : block->norms()) train(norm, options.norm);
}

BlockApParameters::~BlockApParameters() {
  optimizer_.finish();
  for (const torch::Tensor& parameter : trained_) {
    torch::Tensor handle = parameter;
    handle.mutable_grad().reset();
    handle.requires_grad_(false);
  }
}

void BlockApParameters::add(const FakeQuantProjection& projection, const BlockApOptions& options) {
  const Qparams& qparams = projection.qparams();
  const bool symmetric = projection.grid().symmetric;
  const torch::Tensor step = effective_scale(qparams.scale.detach());  // [out, groups]
  const double mean_step = step.mean().item<double>();
  const auto in_unit = [&](AdamWOptions adam) {
    adam.learning_rate = absolute_learning_rate(adam.learning_rate, options.unit, mean_step);
    return adam;
  };
  if (options.trainable == BlockApTrainable::kClipping) {
    ranges_.emplace_back(projection);
    optimizer_.add_group(ranges_.back().factors(), options.clip_factor);
    trained_.push_back(qparams.scale);
    if (!symmetric) trained_.push_back(qparams.zero_point);
  }
  if (trains_qparams(options.trainable)) {
    train(qparams.scale, in_unit(options.scale));
    if (!symmetric) train(qparams.zero_point, options.zero_point);
  }
  if (trains_weights(options.trainable) || trains_rounding(options.trainable)) {
    train(projection.weight(), in_unit(options.weight));
  }
  if (trains_rounding(options.trainable)) {
    bounds_.push_back({.weight = projection.weight(),
                       .start = projection.weight().detach().clone(),
                       .half_step = (0.5 * step).unsqueeze(-1)});
  }
}

void BlockApParameters::train(const torch::Tensor& parameter, const AdamWOptions& options) {
  if (options.learning_rate == 0) return;
  optimizer_.add_group({parameter}, options);
  trained_.push_back(parameter);
}

void BlockApParameters::step(double learning_rate_factor, double clip_norm) {
  for (ClippedRange& range : ranges_) range.pull_gradients();
  optimizer_.step(learning_rate_factor, clip_norm);
  for (ClippedRange& range : ranges_) range.apply();
  const torch::NoGradGuard no_grad;
  for (const RoundingBound& bound : bounds_) {
    const torch::Tensor start =
        bound.start.view({bound.start.size(0), bound.half_step.size(1), -1});
    bound.weight.view(start.sizes()).clamp_(start - bound.half_step, start + bound.half_step);
  }
}

void BlockApParameters::remember() {
  const torch::NoGradGuard no_grad;
  if (remembered_.empty()) {
    for (const torch::Tensor& parameter : trained_) remembered_.push_back(parameter.clone());
    return;
  }
  for (size_t i = 0; i < trained_.size(); ++i) remembered_[i].copy_(trained_[i]);
}

void BlockApParameters::restore() {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < trained_.size(); ++i) trained_[i].copy_(remembered_[i]);
}

}  // namespace qaas
