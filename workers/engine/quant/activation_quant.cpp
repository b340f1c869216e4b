#include "workers/engine/quant/activation_quant.h"

#include <algorithm>
#include <utility>

#include "workers/engine/kernels/decoder_kernels.h"
#include "workers/engine/model/element_type.h"
#include "workers/engine/quant/affine.h"

namespace qaas {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

kernels::ActivationGroups groups_of(const torch::Tensor& x, int64_t group_size,
                                    int64_t largest_level, double clip) {
  const int64_t size = group_size == -1 ? x.size(-1) : group_size;
  TORCH_CHECK(x.size(-1) % size == 0, "activation group size ", size, " does not divide ",
              x.size(-1), " inputs");
  return {x.numel() / size, size, static_cast<float>(largest_level), static_cast<float>(clip)};
}

/// Inputs: x and the master clip; then the grid.
struct FusedActivationQuantize : torch::autograd::Function<FusedActivationQuantize> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& x,
                               const torch::Tensor& clip, int64_t group_size,
                               int64_t largest_level) {
    const torch::Tensor input = x.contiguous();
    const double used_clip = std::clamp(clip.item<float>(), kMinClip, 1.0f);
    torch::Tensor out = torch::empty_like(input);
    const auto shape = groups_of(input, group_size, largest_level, used_clip);
    with_element_type(input.scalar_type(), [&]<class T>(T) {
      kernels::quantize_activations<T>(shape, elements<T>(input), elements<T>(out),
                                       at::get_num_threads());
    });
    const bool straight_through = used_clip == 1 && !clip.requires_grad();
    if (!straight_through) context->save_for_backward({input});
    context->saved_data["straight_through"] = straight_through;
    context->saved_data["clip"] = used_clip;
    context->saved_data["group_size"] = group_size;
    context->saved_data["largest_level"] = largest_level;
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    if (context->saved_data["straight_through"].toBool()) return {grads[0], {}, {}, {}};
    const torch::Tensor x = context->get_saved_variables()[0];  // [tokens, inputs]
    const torch::Tensor grad = grads[0].contiguous();           // [tokens, inputs]
    const auto shape = groups_of(x, context->saved_data["group_size"].toInt(),
                                 context->saved_data["largest_level"].toInt(),
                                 context->saved_data["clip"].toDouble());
    torch::Tensor grad_x = torch::empty_like(x);
    torch::Tensor grad_clip = torch::empty({shape.groups}, torch::kFloat32);
    with_element_type(x.scalar_type(), [&]<class T>(T) {
      kernels::quantize_activations_backward<T>(shape, elements<T>(x), elements<T>(grad),
                                                elements<T>(grad_x), elements<float>(grad_clip),
                                                at::get_num_threads());
    });
    return {grad_x, grad_clip.sum(torch::kFloat64).to(torch::kFloat32).view({1}), {}, {}};
  }
};

}  // namespace

torch::Tensor effective_clip(const torch::Tensor& clip) {
  return straight_through(clip, clip.detach().clamp(kMinClip, 1));
}

torch::Tensor quantize_activations_reference(const torch::Tensor& x, const torch::Tensor& clip,
                                             const ActivationGrid& grid) {
  const auto top = static_cast<double>(grid.largest_level());
  const int64_t size = grid.group_size == -1 ? x.size(-1) : grid.group_size;
  const torch::Tensor groups = x.to(torch::kFloat32).reshape({-1, size});
  const torch::Tensor largest = groups.detach().abs().amax(-1, /*keepdim=*/true);  // [groups, 1]
  const torch::Tensor step = largest * effective_clip(clip) / top;                 // [groups, 1]
  const torch::Tensor scale = torch::where(step == 0, torch::ones_like(step), step);
  const torch::Tensor quotient = groups / scale;
  const torch::Tensor level =
      straight_through(quotient, torch::round(quotient.detach())).clamp(-top, top);
  // Adding zero turns a negative zero into a positive one.
  return (level * scale + 0.0).view(x.sizes()).to(x.scalar_type());
}

torch::Tensor quantize_activations(const torch::Tensor& x, const torch::Tensor& clip,
                                   const ActivationGrid& grid) {
  if (!x.is_cpu()) return quantize_activations_reference(x, clip, grid);
  return FusedActivationQuantize::apply(x, clip, grid.group_size, grid.largest_level());
}

ActivationQuantProjection::ActivationQuantProjection(std::shared_ptr<Projection> wrapped,
                                                     const ActivationQuantizer& quantizer)
    : wrapped_(register_module("wrapped", std::move(wrapped))), grid_(quantizer.grid) {
  TORCH_CHECK(wrapped_->wrapped() == nullptr, "the projection's input is quantized already");
  clip_ = register_parameter("clip", torch::full({1}, quantizer.clip, torch::kFloat32),
                             /*requires_grad=*/false);
}

torch::Tensor ActivationQuantProjection::forward(const torch::Tensor& x) {
  return wrapped_->forward(quantize_activations(x, clip_, grid_));
}

ActivationQuantizer ActivationQuantProjection::quantizer() const {
  return {.grid = grid_, .clip = std::clamp(clip_.item<float>(), kMinClip, 1.0f)};
}

void apply_activation_quantization(DecoderBlock& block, const ActivationOf& activation_of) {
  block->rewrite_projections(
      [&](const std::string& name,
          const std::shared_ptr<Projection>& current) -> std::shared_ptr<Projection> {
        const auto quantizer = activation_of(name);
        if (!quantizer.has_value()) return current;
        return std::make_shared<ActivationQuantProjection>(current, *quantizer);
      });
}

}  // namespace qaas
