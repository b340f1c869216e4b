#include "workers/engine/quant/quantized_block.h"

#include "workers/engine/quant/fake_quant_projection.h"
#include "workers/engine/quant/packed_projection.h"

namespace qaas {
namespace {

std::map<std::string, torch::Tensor> norms_as_stored(const DecoderBlock& block) {
  std::map<std::string, torch::Tensor> norms;
  for (const auto& [name, weight] : block->norms()) {
    norms[name] = weight.detach().to(torch::kFloat16).to(torch::kFloat32);
  }
  return norms;
}

std::map<std::string, ActivationQuantizer> activation_quantizers(const DecoderBlock& block) {
  std::map<std::string, ActivationQuantizer> quantizers;
  for (const auto& [name, projection] : block->projections()) {
    const auto wrapper = std::dynamic_pointer_cast<ActivationQuantProjection>(projection);
    if (wrapper != nullptr) quantizers[name] = wrapper->quantizer();
  }
  return quantizers;
}

/// With its master, where it has one, so that it can go on training.
std::shared_ptr<Projection> trainable_projection(const QuantizedBlock& quantized,
                                                 const std::string& name) {
  const QuantizedWeight& codes = quantized.projections.at(name);
  const auto found = quantized.masters.find(name);
  if (found == quantized.masters.end()) return std::make_shared<PackedProjection>(codes);
  const MasterWeight& master = found->second;
  return std::make_shared<FakeQuantProjection>(
      master.weight.clone(),
      Qparams{master.qparams.scale.clone(), master.qparams.zero_point.clone()},
      AffineGrid{.bits = codes.bits, .group_size = codes.group_size, .symmetric = codes.symmetric});
}

enum class Form { kPacked, kTrainable };

DecoderBlock make_block(const ModelConfig& config, const TensorSource& tensor, int64_t index,
                        const QuantizedBlock& quantized, Form form) {
  const std::string prefix = block_prefix(index);
  const auto projection = [&](const std::string& name) -> std::shared_ptr<Projection> {
    const auto found = quantized.projections.find(name);
    if (found == quantized.projections.end()) {
      return std::make_shared<DenseProjection>(to_float_tensor(tensor(prefix + name + ".weight")));
    }
    if (form == Form::kTrainable) return trainable_projection(quantized, name);
    return std::make_shared<PackedProjection>(found->second);
  };
  const auto norm = [&](const std::string& name) { return quantized.norms.at(name).clone(); };
  DecoderBlock block(config, BlockParts{.projection = projection, .norm = norm});
  apply_activation_quantization(block,
                                [&](const std::string& name) -> std::optional<ActivationQuantizer> {
                                  const auto found = quantized.activations.find(name);
                                  if (found == quantized.activations.end()) return std::nullopt;
                                  return found->second;
                                });
  return block;
}

}  // namespace

void prepare_block(DecoderBlock& block, const GridOf& grid_of) {
  block->rewrite_projections(
      [&](const std::string& name,
          const std::shared_ptr<Projection>& current) -> std::shared_ptr<Projection> {
        const auto dense = std::dynamic_pointer_cast<DenseProjection>(current);
        TORCH_CHECK(dense != nullptr, "projection ", name, " is prepared already");
        const auto grid = grid_of(name, dense->weight().size(1));
        if (!grid.has_value()) return current;
        return std::make_shared<FakeQuantProjection>(
            dense->weight().clone(), min_max_qparams(dense->weight(), *grid), *grid);
      });
}

QuantizedBlock convert_block(const DecoderBlock& block, Masters masters) {
  QuantizedBlock result;
  for (const auto& [name, projection] : block->projections()) {
    if (const auto fake = weight_as<FakeQuantProjection>(projection)) {
      result.projections[name] = fake->to_quantized_weight();
      if (masters == Masters::kDrop) continue;
      result.masters[name] = {.weight = fake->weight().detach().clone(),
                              .qparams = {fake->qparams().scale.detach().clone(),
                                          fake->qparams().zero_point.detach().clone()}};
    } else if (const auto packed = weight_as<PackedProjection>(projection)) {
      result.projections[name] = packed->to_quantized_weight();
    }
  }
  result.norms = norms_as_stored(block);
  result.activations = activation_quantizers(block);
  return result;
}

DecoderBlock make_packed_block(const ModelConfig& config, const TensorSource& tensor, int64_t index,
                               const QuantizedBlock& quantized) {
  return make_block(config, tensor, index, quantized, Form::kPacked);
}

DecoderBlock make_trainable_block(const ModelConfig& config, const TensorSource& tensor,
                                  int64_t index, const QuantizedBlock& quantized) {
  return make_block(config, tensor, index, quantized, Form::kTrainable);
}

}  // namespace qaas
