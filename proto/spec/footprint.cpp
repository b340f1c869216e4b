#include <algorithm>
#include <cstdint>
#include <string>

#include "proto/spec/job_spec.h"
#include "proto/spec/runtimes.h"

namespace qaas {
namespace {

constexpr double kFloat = 4;
constexpr double kHalf = 2;
/// Resident size of the engine with its libraries loaded and nothing to do.
constexpr double kIdleEngine = 256.0 * 1024 * 1024;
/// Characters of one tensor's entry in a safetensors header, besides its name.
constexpr int64_t kHeaderEntry = 80;
constexpr int64_t kDefaultMostCalibration = 4096;
constexpr int64_t kDefaultMostEvaluation = 256;

/// Sums over a model's projections.
struct Sums {
  double quantized_weights = 0;
  double groups = 0;       ///< scales of all quantized projections
  double packed_bits = 0;  ///< codes, scales and zero points
  double index_bytes = 0;  ///< g_idx
  double header_bytes = 0;
  double projection_weights = 0;  ///< quantized or not
};

Sums add_up(const v1::JobSpec& spec, const v1::Model& model) {
  Sums sums;
  for (const v1::ProjectionShape& projection : model.projections()) {
    const double inputs = projection.input_size();
    const double outputs = projection.output_size();
    sums.projection_weights += inputs * outputs;
    const ProjectionGrid grid = grid_for(spec, projection.name(), projection.input_size());
    const double entry = kHeaderEntry + projection.name().size();
    if (grid.bits == 0 || grid.group_size <= 0) {
      sums.header_bytes += entry;
      continue;
    }
    const double groups = outputs * inputs / grid.group_size;
    sums.quantized_weights += inputs * outputs;
    sums.groups += groups;
    sums.packed_bits += inputs * outputs * grid.bits + groups * (grid.bits + 8 * kHalf);
    sums.index_bytes += inputs * 4;
    sums.header_bytes += 4 * entry;  // qweight, qzeros, scales, g_idx
  }
  constexpr int kOtherTensorsPerBlock = 2;  // norms
  constexpr int kOtherTensors = 3;          // embedding, final norm, head
  sums.header_bytes +=
      (kOtherTensorsPerBlock * model.block_count() + kOtherTensors) * (kHeaderEntry + 40.0);
  return sums;
}

double window_count(const v1::DataSelection& selection, int64_t most) {
  return selection.has_samples() ? selection.samples() : most;
}

double memory(const v1::JobSpec& spec, const v1::Model& model, const Sums& sums,
              double packed_bytes) {
  const double hidden = model.hidden_size();
  const double blocks = std::max(model.block_count(), 1);
  const double block_weights = sums.projection_weights / blocks;
  const double block_scales = sums.groups / blocks;
  // Hidden-sized tensors a block keeps for its backward pass, per token: about twenty with a
  // feed-forward of three times the hidden size, plus one fake-quantized copy of each weight.
  constexpr double kActivations = 20;

  const v1::DataSelection& evaluation = spec.evaluation();
  const double evaluation_tokens = evaluation.sequence_length();
  // Scoring: original and quantized stream of every window, logits of one window in both models.
  double peak =
      2 * window_count(evaluation, kDefaultMostEvaluation) * evaluation_tokens * hidden * kFloat +
      3 * evaluation_tokens * model.vocabulary_size() * kFloat + 2 * block_weights * kFloat;
  const double embeddings =
      std::max<double>(model.parameter_count() - sums.projection_weights, 0) * kFloat;

  if (spec.method() == v1::METHOD_EFFICIENT_QAT) {
    const double length = spec.calibration().sequence_length();
    // fp32 weights, gradients and two Adam moments; the same for scales and zero points.
    const double trained = 4 * kFloat * (block_weights + 2 * block_scales) + kFloat * block_weights;
    // Full-precision stream, quantized stream and the block's target, for all windows.
    const double caches =
        3 * window_count(spec.calibration(), kDefaultMostCalibration) * length * hidden * kFloat;
    const double batch = spec.block_ap().batch_size() * length * hidden * kActivations * kFloat;
    if (spec.block_ap().epochs() > 0) peak = std::max(peak, trained + caches + batch);
    if (spec.e2e_qp().epochs() > 0) {
      const double tokens = spec.e2e_qp().micro_batch_size() * length;
      const double logits = 3 * tokens * model.vocabulary_size() * kFloat;
      const double activations = tokens * hidden * kFloat * (blocks + kActivations);
      const double scales = 4 * kFloat * sums.groups;
      peak =
          std::max(peak, packed_bytes + scales + logits + activations + 2 * block_weights * kFloat);
    }
  }
  return kIdleEngine + embeddings + peak;
}

}  // namespace

Footprint footprint(const v1::JobSpec& spec, const v1::Model& model) {
  const Sums sums = add_up(spec, model);
  const double packed_bytes = sums.packed_bits / 8 + sums.index_bytes;
  const double other_weights =
      std::max<double>(model.parameter_count() - sums.quantized_weights, 0);
  const double bytes_per_parameter =
      model.parameter_count() > 0
          ? static_cast<double>(model.size_bytes()) / model.parameter_count()
          : 0;
  const double artifact = packed_bytes + other_weights * bytes_per_parameter + sums.header_bytes;
  // Block checkpoints hold the packed block with fp32 scales; end-to-end training adds two moments.
  const double checkpoints = packed_bytes + sums.groups * (kFloat - kHalf);
  const double optimizer = spec.method() == v1::METHOD_EFFICIENT_QAT ? 3 * kFloat * sums.groups : 0;

  Footprint result;
  result.original_bytes = model.size_bytes();
  result.artifact_bytes = static_cast<int64_t>(artifact);
  result.bits_per_weight =
      sums.quantized_weights > 0 ? sums.packed_bits / sums.quantized_weights : 0;
  result.memory_bytes = static_cast<int64_t>(memory(spec, model, sums, packed_bytes));
  result.disk_bytes = static_cast<int64_t>(artifact + checkpoints + optimizer);
  for (const v1::TargetRuntime runtime :
       {v1::TARGET_RUNTIME_GPTQMODEL, v1::TARGET_RUNTIME_VLLM, v1::TARGET_RUNTIME_LLAMA_CPP}) {
    result.runtimes.push_back(runtime_support(runtime, spec, model));
  }
  return result;
}

}  // namespace qaas
