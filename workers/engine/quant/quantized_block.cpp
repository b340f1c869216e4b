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

QuantizedBlock convert_block(const DecoderBlock& block) {
  QuantizedBlock result;
  for (const auto& [name, projection] : block->projections()) {
    const auto fake = weight_as<FakeQuantProjection>(projection);
    if (fake != nullptr) result.projections[name] = fake->to_quantized_weight();
  }
  result.norms = norms_as_stored(block);
  result.activations = activation_quantizers(block);
  return result;
}

DecoderBlock make_packed_block(const ModelConfig& config, const TensorSource& tensor, int64_t index,
                               const QuantizedBlock& quantized) {
  const std::string prefix = block_prefix(index);
  const auto projection = [&](const std::string& name) -> std::shared_ptr<Projection> {
    const auto found = quantized.projections.find(name);
    if (found != quantized.projections.end()) {
      return std::make_shared<PackedProjection>(found->second);
    }
    return std::make_shared<DenseProjection>(to_float_tensor(tensor(prefix + name + ".weight")));
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

QuantizedBlock repack_block(const DecoderBlock& block) {
  QuantizedBlock result;
  for (const auto& [name, projection] : block->projections()) {
    const auto packed = weight_as<PackedProjection>(projection);
    if (packed != nullptr) result.projections[name] = packed->to_quantized_weight();
  }
  result.norms = norms_as_stored(block);
  result.activations = activation_quantizers(block);
  return result;
}

}  // namespace qaas
