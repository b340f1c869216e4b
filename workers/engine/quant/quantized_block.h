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

/// What a fake-quantized projection was trained with: rounding it gives the codes.
struct MasterWeight {
  torch::Tensor weight;  ///< [out, in] float32
  Qparams qparams;       ///< [out, in / group_size] float32
};

/// The finished form of one decoder block. Names are those inside the block.
struct QuantizedBlock {
  /// "self_attn.q_proj" → codes. A projection that keeps full precision is absent.
  std::map<std::string, QuantizedWeight> projections;
  /// "input_layernorm.weight" → [dim] float32, exact in fp16: norms train with the block and are
  /// used as they will be stored.
  std::map<std::string, torch::Tensor> norms;
  /// "self_attn.q_proj" → how its input is quantized; absent where it is not.
  std::map<std::string, ActivationQuantizer> activations;
  /// Of the projections whose weights go on training: what their codes were rounded from.
  std::map<std::string, MasterWeight> masters;
};

/// The grid of a projection of `block_prefix(index) + name`, or none to keep full precision.
using GridOf =
    std::function<std::optional<AffineGrid>(const std::string& name, int64_t input_size)>;

/// Prepare: replaces each dense projection that has a grid by a FakeQuantProjection with min-max
/// qparams. Without calibration text or search: initialise_block (workers/engine/train) chooses.
void prepare_block(DecoderBlock& block, const GridOf& grid_of);

enum class Masters { kDrop, kKeep };

/// Convert: the codes, zero points, scales, norms and clips that a prepared, packed or mixed block
/// has arrived at, and on request the masters of its fake-quantized projections.
QuantizedBlock convert_block(const DecoderBlock& block, Masters masters = Masters::kDrop);

/// Block `index` with the projections of `quantized` packed, its norms and its quantized inputs;
/// projections without codes are dense from `tensor`.
DecoderBlock make_packed_block(const ModelConfig& config, const TensorSource& tensor, int64_t index,
                               const QuantizedBlock& quantized);

/// The same with every projection that has a master fake-quantized, so that its weight can train.
DecoderBlock make_trainable_block(const ModelConfig& config, const TensorSource& tensor,
                                  int64_t index, const QuantizedBlock& quantized);

}  // namespace qaas
