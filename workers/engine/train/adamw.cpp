#include "workers/engine/train/adamw.h"

#include <cmath>

#include "workers/engine/kernels/quantization_kernels.h"

namespace qaas {
namespace {

/// The same update in plain ATen, for tensors that are not on the CPU.
void adamw_reference(const AdamWOptions& options, double learning_rate, int64_t step,
                     const torch::Tensor& parameter, const torch::Tensor& gradient,
                     const torch::Tensor& first, const torch::Tensor& second) {
  parameter.mul_(1.0 - learning_rate * options.weight_decay);
  first.mul_(options.beta1).add_(gradient, 1.0 - options.beta1);
  second.mul_(options.beta2).addcmul_(gradient, gradient, 1.0 - options.beta2);
  const double correction1 = 1.0 - std::pow(options.beta1, step);
  const double correction2 = 1.0 - std::pow(options.beta2, step);
  const torch::Tensor denominator = (second.sqrt() / std::sqrt(correction2)).add_(options.epsilon);
  parameter.addcdiv_(first, denominator, -learning_rate / correction1);
}

double sum_of_squares(const torch::Tensor& gradient) {
  if (!gradient.is_cpu()) return gradient.square().sum(torch::kFloat64).item<double>();
  const torch::Tensor dense = gradient.contiguous();
  return kernels::sum_of_squares(dense.data_ptr<float>(), dense.numel(), at::get_num_threads());
}

}  // namespace

void AdamW::add_group(const std::vector<torch::Tensor>& parameters, const AdamWOptions& options) {
  for (torch::Tensor parameter : parameters) {
    TORCH_CHECK(parameter.scalar_type() == torch::kFloat32 && parameter.is_contiguous(),
                "AdamW wants contiguous float32 parameters");
    parameter.requires_grad_(true);
    slots_.push_back(
        {parameter, torch::zeros_like(parameter), torch::zeros_like(parameter), options});
  }
}

double AdamW::step(double learning_rate_factor, double clip_norm) {
  const torch::NoGradGuard no_grad;
  double square = 0;
  for (const Slot& slot : slots_) {
    if (slot.parameter.grad().defined()) square += sum_of_squares(slot.parameter.grad());
  }
  const double norm = std::sqrt(square);
  if (!std::isfinite(norm)) {
    for (Slot& slot : slots_) slot.parameter.mutable_grad().reset();
    return norm;
  }
  ++steps_;
  if (clip_norm > 0 && norm > clip_norm) {
    for (const Slot& slot : slots_) {
      if (slot.parameter.grad().defined()) slot.parameter.grad().mul_(clip_norm / norm);
    }
  }
  for (Slot& slot : slots_) {
    torch::Tensor& gradient = slot.parameter.mutable_grad();
    if (!gradient.defined()) continue;
    const double learning_rate = slot.options.learning_rate * learning_rate_factor;
    if (slot.parameter.is_cpu()) {
      const torch::Tensor dense = gradient.contiguous();
      kernels::adamw_step({.learning_rate = static_cast<float>(learning_rate),
                           .beta1 = static_cast<float>(slot.options.beta1),
                           .beta2 = static_cast<float>(slot.options.beta2),
                           .epsilon = static_cast<float>(slot.options.epsilon),
                           .weight_decay = static_cast<float>(slot.options.weight_decay),
                           .step = steps_},
                          slot.parameter.numel(), slot.parameter.data_ptr<float>(),
                          dense.data_ptr<float>(), slot.first_moment.data_ptr<float>(),
                          slot.second_moment.data_ptr<float>(), at::get_num_threads());
    } else {
      adamw_reference(slot.options, learning_rate, steps_, slot.parameter, gradient,
                      slot.first_moment, slot.second_moment);
    }
    gradient.reset();
  }
  return norm;
}

void AdamW::finish() {
  for (Slot& slot : slots_) {
    slot.parameter.mutable_grad().reset();
    slot.parameter.requires_grad_(false);
  }
  slots_.clear();
}

}  // namespace qaas
