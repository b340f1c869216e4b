#pragma once

#include <functional>
#include <stop_token>
#include <string>

#include <absl/status/status.h>
#include <torch/torch.h>

#include "workers/engine/model/decoder_block.h"
#include "workers/engine/quant/gptq.h"
#include "workers/engine/quant/quantized_block.h"

namespace qaas {

/// How a projection's first weight and qparams are found.
enum class Initializer {
  kMinMax,      ///< the weight as it is, min_max_qparams
  kClipSearch,  ///< the weight as it is, clip_search_qparams
  kGptq,        ///< the weight GPTQ compensated, qparams by InitialiseOptions::gptq_qparams
};

/// Qparams that GPTQ rounds with.
enum class GptqQparams { kMinMax, kClipSearch };

/// How much each input counts in a clip search.
enum class ClipImportance {
  kUniform,     ///< error of the weight
  kMeanSquare,  ///< by the mean square of the input on the calibration windows
};

struct InitialiseOptions {
  /// By name inside the block ("self_attn.q_proj"); asked only for projections that have a grid.
  std::function<Initializer(const std::string& name)> initializer = [](const std::string&) {
    return Initializer::kMinMax;
  };
  /// GPTQ cannot repair qparams: at 2 bits those of min-max leave most of the error in place.
  GptqQparams gptq_qparams = GptqQparams::kClipSearch;
  /// Of every clip search. By the input's mean square wherever there is calibration text: inputs
  /// differ in size by orders of magnitude, and errors in the large ones are what is seen.
  ClipImportance clip_importance = ClipImportance::kMeanSquare;
  GptqOptions gptq;
  torch::ScalarType compute = torch::kFloat32;  ///< of the block's products; statistics are float32
};

/// The first stage of a recipe: replaces each dense projection of `block` that has a grid by a
/// FakeQuantProjection with the weight and qparams of its initializer.
///
/// inputs: [windows, seq, dim] float32, the quantized stream; needed, and read, only where an
/// initializer uses data (kGptq, kMeanSquare), else undefined will do. Projections are then taken
/// in the order in which the block uses them (q, k, v; o; gate, up; down), each group of them with
/// the inputs that the ones before it, already quantized, produce; projections of a group share
/// one Hessian. Costs up to four partial passes over `inputs`, together less than two whole ones.
///
/// Errors name the projection: those of factor_hessian. kCancelled when `stop` is requested: the
/// block is then partly initialised and of no use. Deterministic for a thread count.
absl::Status initialise_block(DecoderBlock& block, const GridOf& grid_of,
                              const InitialiseOptions& options, const torch::Tensor& inputs,
                              const RopeTable& rope, std::stop_token stop);

}  // namespace qaas
