#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "storage/checkpoint/model_config.h"
#include "workers/engine/model/decoder.h"
#include "workers/engine/quant/activation_quant.h"
#include "workers/engine/quant/affine.h"
#include "workers/engine/quant/quantized_weight.h"

namespace qaas {

/// The finished form of one decoder block. Names are those inside the block.
struct QuantizedBlock {
  /// "self_attn.q_proj" → codes. A projection that keeps full precision is absent.
  std::map<std::string, QuantizedWeight> projections;
  /// "input_layernorm.weight" → [dim] float32, exact in fp16: norms train with the block and are
  /// used as they will be stored.
  std::map<std::string, torch::Tensor> norms;
  /// "self_attn.q_proj" → how its input is quantized; absent where it is not.
  std::map<std::string, ActivationQuantizer> activations;
};

/// The grid of a projection of `block_prefix(index) + name`, or none to keep full precision.
using GridOf =
    std::function<std::optional<AffineGrid>(const std::string& name, int64_t input_size)>;

/// Prepare: replaces each dense projection that has a grid by a FakeQuantProjection with min-max
/// qparams. Without calibration text or search: initialise_block (workers/engine/train) chooses.
void prepare_block(DecoderBlock& block, const GridOf& grid_of);

/// Convert: the codes, zero points, scales, norms and clips a prepared block has arrived at.
QuantizedBlock convert_block(const DecoderBlock& block);

/// Block `index` with the projections of `quantized` packed, its norms and its quantized inputs;
/// projections without codes are dense from `tensor`.
DecoderBlock make_packed_block(const ModelConfig& config, const TensorSource& tensor, int64_t index,
                               const QuantizedBlock& quantized);

/// What a packed block holds now: its scales may have been trained since it was made.
QuantizedBlock repack_block(const DecoderBlock& block);

}  // namespace qaas
