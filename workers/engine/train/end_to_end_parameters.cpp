#include "workers/engine/train/end_to_end_parameters.h"

#include <absl/strings/str_cat.h>

#include "workers/engine/quant/activation_quant.h"
#include "workers/engine/quant/fake_quant_projection.h"
#include "workers/engine/quant/packed_projection.h"

namespace qaas {
namespace {

constexpr char kParameter[] = "parameter/", kFirst[] = "first_moment/",
               kSecond[] = "second_moment/", kBest[] = "best/";

/// A quantized weight that does not change, in the compute type.
class FixedProjection : public Projection {
 public:
  explicit FixedProjection(torch::Tensor weight) : weight_(std::move(weight)) {}
  torch::Tensor forward(const torch::Tensor& x) override { return torch::mm(x, weight_.t()); }
  int64_t output_size() const override { return weight_.size(0); }
  torch::Tensor effective_weight() override { return weight_.to(torch::kFloat32); }

 private:
  torch::Tensor weight_;  // [out, in]
};

bool is_quantized(const std::shared_ptr<Projection>& projection) {
  return weight_as<PackedProjection>(projection) != nullptr ||
         weight_as<FakeQuantProjection>(projection) != nullptr;
}

}  // namespace

EndToEndParameters::EndToEndParameters(const ModelEnds& ends, std::vector<DecoderBlock>& blocks,
                                       const EndToEndOptions& options)
    : blocks_(blocks), first_trained_block_(blocks.size()) {
  for (size_t i = 0; i < blocks.size(); ++i) {
    const std::string prefix = absl::StrCat("block.", i, ".");
    for (const auto& [name, projection] : blocks[i]->projections()) {
      if (options.frozen && options.frozen(static_cast<int64_t>(i), name)) continue;
      add_projection(prefix + name, *weight_as<Projection>(projection), options);
      const auto input = std::dynamic_pointer_cast<ActivationQuantProjection>(projection);
      if (input != nullptr) train(prefix + name + ".clip", input->clip(), options.activation_clip);
    }
    for (const auto& [name, norm] : blocks[i]->norms()) train(prefix + name, norm, options.norm);
    if (!empty() && first_trained_block_ == blocks.size()) first_trained_block_ = i;
  }
  train("final_norm", ends.final_norm, options.final_norm);
  if (options.frozen) hold_frozen(options);
}

EndToEndParameters::~EndToEndParameters() {
  optimizer_.finish();
  for (size_t i = 0; i < blocks_.size() && !held_.empty(); ++i) {
    blocks_[i]->rewrite_projections(
        [&](const std::string& name, const std::shared_ptr<Projection>& current) {
          const auto found = held_.find({i, name});
          return found == held_.end() ? current : found->second;
        });
  }
}

void EndToEndParameters::add_projection(const std::string& name, Projection& projection,
                                        const EndToEndOptions& options) {
  const auto add = [&](const torch::Tensor& scale, const torch::Tensor& zero_point, bool symmetric,
                       const torch::Tensor& weight) {
    const double mean_step = effective_scale(scale.detach()).mean().item<double>();
    const auto in_unit = [&](AdamWOptions adam) {
      adam.learning_rate = absolute_learning_rate(adam.learning_rate, options.unit, mean_step);
      return adam;
    };
    train(name + ".scale", scale, in_unit(options.scale));
    if (!symmetric) train(name + ".zero_point", zero_point, options.zero_point);
    if (weight.defined()) train(name + ".weight", weight, in_unit(options.weight));
  };
  if (const auto* packed = dynamic_cast<const PackedProjection*>(&projection)) {
    add(packed->scale(), packed->zero_point(), packed->symmetric(), {});
  } else if (const auto* fake = dynamic_cast<const FakeQuantProjection*>(&projection)) {
    add(fake->qparams().scale, fake->qparams().zero_point, fake->grid().symmetric, fake->weight());
  }
}

void EndToEndParameters::train(const std::string& name, const torch::Tensor& parameter,
                               const AdamWOptions& options) {
  if (options.learning_rate == 0) return;
  optimizer_.add_group({parameter}, options);
  names_.push_back(name);
}

void EndToEndParameters::hold_frozen(const EndToEndOptions& options) {
  const torch::NoGradGuard no_grad;
  int64_t room = options.frozen_weight_budget;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i]->rewrite_projections(
        [&](const std::string& name,
            const std::shared_ptr<Projection>& current) -> std::shared_ptr<Projection> {
          if (!is_quantized(current) || !options.frozen(static_cast<int64_t>(i), name)) {
            return current;
          }
          torch::Tensor weight = current->effective_weight().to(options.compute);  // [out, in]
          room -= weight.numel() * static_cast<int64_t>(weight.element_size());
          if (room < 0) return current;
          held_[{i, name}] = current;
          const auto fixed = std::make_shared<FixedProjection>(std::move(weight));
          const auto input = std::dynamic_pointer_cast<ActivationQuantProjection>(current);
          if (input == nullptr) return fixed;
          return std::make_shared<ActivationQuantProjection>(fixed, input->quantizer());
        });
  }
}

double EndToEndParameters::step(double learning_rate_factor, double clip_norm) {
  return optimizer_.step(learning_rate_factor, clip_norm);
}

void EndToEndParameters::remember() {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < names_.size(); ++i) {
    const torch::Tensor& parameter = optimizer_.slots()[i].parameter;
    if (remembered_.size() == i) {
      remembered_.push_back(parameter.detach().clone());
    } else {
      remembered_[i].copy_(parameter);
    }
  }
}

void EndToEndParameters::restore() {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < remembered_.size(); ++i) {
    torch::Tensor(optimizer_.slots()[i].parameter).copy_(remembered_[i]);
  }
}

void EndToEndParameters::write_to(EndToEndState& state) const {
  for (size_t i = 0; i < names_.size(); ++i) {
    const AdamW::Slot& slot = optimizer_.slots()[i];
    state.tensors[kParameter + names_[i]] = slot.parameter.detach();
    state.tensors[kFirst + names_[i]] = slot.first_moment;
    state.tensors[kSecond + names_[i]] = slot.second_moment;
    if (!remembered_.empty()) state.tensors[kBest + names_[i]] = remembered_[i];
  }
}

absl::Status EndToEndParameters::read_from(const EndToEndState& state) {
  const torch::NoGradGuard no_grad;
  const bool has_best = state.tensors.size() == 4 * names_.size();
  if (!has_best && state.tensors.size() != 3 * names_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the state has ", state.tensors.size(),
                                                   " tensors, expected three or four for "
                                                   "each of ",
                                                   names_.size(), " parameters"));
  }
  if (has_best) remember();  // makes room
  for (size_t i = 0; i < names_.size(); ++i) {
    const AdamW::Slot& slot = optimizer_.slots()[i];
    std::vector<std::pair<std::string, torch::Tensor>> wanted = {
        {kParameter + names_[i], slot.parameter},
        {kFirst + names_[i], slot.first_moment},
        {kSecond + names_[i], slot.second_moment}};
    if (has_best) wanted.emplace_back(kBest + names_[i], remembered_[i]);
    for (auto& [name, tensor] : wanted) {
      const auto found = state.tensors.find(name);
      if (found == state.tensors.end() || found->second.sizes() != tensor.sizes()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "the state's tensor '", name, "' is missing or does not have the parameter's shape"));
      }
      tensor.copy_(found->second);
    }
  }
  optimizer_.set_steps(state.step);
  return absl::OkStatus();
}

}  // namespace qaas
