#pragma once

#include <map>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/model_config.h"
#include "workers/engine/quant/activation_quantizer.h"

/// activation_quantization.json of an artifact: how the inputs of its projections are quantized. No
/// runtime's own configuration can say this, so it has a file of its own, absent where no input
/// is quantized.
namespace qaas {

/// By module name ("model.layers.0.mlp.down_proj"); a projection whose input is not quantized is
/// absent.
using ActivationQuantizers = std::map<std::string, ActivationQuantizer>;

/// {"projections": {name: {"bits", "group_size", "clip"}}}; group_size -1: a token's inputs share
/// one scale.
nlohmann::ordered_json activation_json(const ActivationQuantizers& quantizers);

/// The inverse, strict: kInvalidArgument names the field that is missing or out of range, a
/// projection that the model does not have, or a group size that does not divide its inputs.
absl::StatusOr<ActivationQuantizers> parse_activation_json(
    const nlohmann::json& document, const std::vector<Projection2d>& projections);

}  // namespace qaas
