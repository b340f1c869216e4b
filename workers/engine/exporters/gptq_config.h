#pragma once

#include <map>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/model_config.h"
#include "workers/engine/exporters/gptq.h"

/// The `quantization_config` object of config.json, which is also the whole of
/// quantize_config.json.
namespace qaas {

/// The grid of every projection of a model, by name, group sizes resolved; bits 0: full precision.
using GptqGrids = std::map<std::string, GptqGrid>;

/// The object for a model whose projections have `grids`. `base` is what most of them share
/// (group_size -1: each projection's whole row); the others are named in `dynamic` by anchored,
/// escaped expressions, with "-:" for those in full precision. Where q, k and v (or gate and up)
/// share an exception it is repeated under the name of the fused projection, which vLLM looks for.
/// Every projection has an entry in `grids`. A quantized head is one of the projections, "lm_head";
/// one in full precision is not.
nlohmann::ordered_json gptq_quantization_config(const GptqGrid& base,
                                                const std::vector<Projection2d>& projections,
                                                const GptqGrids& grids,
                                                const std::string& tool_version);

/// The inverse, strict: kInvalidArgument names the field that is missing or not what
/// gptq_quantization_config would write for these projections (`meta` may hold anything).
/// `projections` holds "lm_head" where the configuration says that it is quantized.
absl::StatusOr<GptqGrids> parse_gptq_quantization_config(
    const nlohmann::json& config, const std::vector<Projection2d>& projections);

/// vLLM fuses q, k, v and gate, up when it loads: kInvalidArgument, naming both, if members of one
/// fused projection have different grids.
absl::Status check_fused_projections(const GptqGrids& grids);

}  // namespace qaas
