#include <algorithm>
#include <cstdint>
#include <string>

#include "proto/spec/job_spec.h"
#include "proto/spec/runtimes.h"

namespace qaas {
namespace {

constexpr double kFloat = 4;
constexpr double kHalf = 2;
constexpr double kMebi = 1024.0 * 1024;
/// Anonymous memory of the engine with its libraries loaded and nothing to do, and what its
/// allocator keeps of freed memory besides.
constexpr double kIdleEngine = 160 * kMebi;
/// Freed pieces that fit nothing else, as a share of what is in use. From two Block-AP runs, hidden
/// sizes 1024 and 2048 (tests/bench/RESULTS.md): 1.15 was within 1 % of the larger one's peak.
constexpr double kFragmentation = 1.2;
/// Chunks of logits: 32 MiB in float32, and about six of their size at once while two models'
/// distributions are compared (LanguageHead, score_model).
constexpr double kLogitChunk = 32 * kMebi;
/// Above this end-to-end training runs blocks again instead of keeping their activations.
constexpr double kActivationBudget = 4096 * kMebi;
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
  double outputs = 0;             ///< of all projections
  double largest_projection = 0;  ///< weights
  double most_inputs = 0;
};

Sums add_up(const v1::JobSpec& spec, const v1::Model& model) {
  Sums sums;
  for (const v1::ProjectionShape& projection : model.projections()) {
    const double inputs = projection.input_size();
    const double outputs = projection.output_size();
    sums.projection_weights += inputs * outputs;
    sums.outputs += outputs;
    sums.most_inputs = std::max(sums.most_inputs, inputs);
    sums.largest_projection = std::max(sums.largest_projection, inputs * outputs);
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

/// Bytes of a model's parts, one block being the average.
struct Parts {
  double hidden = 0;
  double blocks = 1;
  double block_weights = 0;
  double block_groups = 0;
  double largest_projection = 0;
  double head = 0;  ///< float32
  /// Of one block's activations for a token, float32: what the backward pass needs, and as much
  /// again while it runs (about ten hidden-sized rows, each projection's output, and attention).
  double activations = 0;
};

Parts parts_of(const v1::Model& model, const Sums& sums) {
  const double blocks = std::max(model.block_count(), 1);
  const double hidden = model.hidden_size();
  return {.hidden = hidden,
          .blocks = blocks,
          .block_weights = sums.projection_weights / blocks,
          .block_groups = sums.groups / blocks,
          .largest_projection = sums.largest_projection,
          .head = hidden * model.vocabulary_size() * kFloat,
          .activations = 2 * (10 * hidden + sums.outputs / blocks) * kFloat};
}

/// Scoring, one block at a time: a block as it is loaded, checked and quantized to the nearest
/// point; the streams of the original and the model; two heads and chunks of their logits.
double scoring_memory(const v1::JobSpec& spec, const v1::Model& model, const Parts& parts,
                      double packed_bytes) {
  const v1::DataSelection& evaluation = spec.evaluation();
  const double windows = window_count(evaluation, kDefaultMostEvaluation);
  const double streams = 3 * windows * evaluation.sequence_length() * parts.hidden * kFloat;
  const double logits =
      std::min(kLogitChunk, kFloat * evaluation.sequence_length() * model.vocabulary_size());
  const double block = kFloat * (parts.block_weights + 2 * parts.largest_projection) +
                       3 * packed_bytes / parts.blocks;
  constexpr double kTokensAtATime = 1024;
  const double activations =
      parts.activations * std::max<double>(kTokensAtATime, evaluation.sequence_length());
  return streams + std::max(2 * parts.head + 6 * logits, block + activations);
}

/// GPTQ: a block, and the Hessian of the widest projection with its factor and inverse.
double initialisation_memory(const Parts& parts, const Sums& sums) {
  constexpr double kTokensAtATime = 1024;
  return kFloat * (parts.block_weights + 2 * parts.largest_projection) +
         3 * 2 * kFloat * sums.most_inputs * sums.most_inputs + parts.activations * kTokensAtATime;
}

/// One block's float32 weights, gradients and two Adam moments, and the fake-quantized weights that
/// the backward pass needs; the same for scales and zero points; copies for a bound on rounding and
/// for the best epoch.
double block_training_memory(const v1::JobSpec& spec, const Parts& parts) {
  const v1::BlockApOptions& options = spec.block_ap();
  const bool rounding = options.trainable() == v1::BLOCK_AP_TRAINABLE_ROUNDING ||
                        options.trainable() == v1::BLOCK_AP_TRAINABLE_SCALE_ZERO_ROUNDING;
  double copies = 5;
  if (rounding) copies += 1;
  if (options.validation_samples() > 0) copies += 1;
  const double length = spec.calibration().sequence_length();
  const double batch = options.batch_size() * length;
  const double prefetch = 4 * batch * parts.hidden * kFloat;
  return copies * kFloat * (parts.block_weights + 2 * parts.block_groups) +
         2 * kFloat * parts.largest_projection + prefetch + parts.activations * batch;
}

/// All blocks, packed (twice: the finished blocks are kept beside those in training) with float32
/// scales and zero points, or with weights, gradients and moments of everything; the input of every
/// block, and its activations as far as their budget goes.
double end_to_end_memory(const v1::EndToEndOptions& options, const v1::JobSpec& spec,
                         const Parts& parts, const Sums& sums, double packed_bytes) {
  const double tokens = options.micro_batch_size() * spec.calibration().sequence_length();
  const bool all_weights = options.weight_learning_rate() > 0;
  const double model = all_weights
                           ? 4 * kFloat * (sums.projection_weights + 2 * sums.groups) + packed_bytes
                           : 2 * packed_bytes + 8 * kFloat * sums.groups;
  const double one_block = parts.activations * tokens;
  const double kept = std::min(parts.blocks * one_block, kActivationBudget);
  const double teacher = options.objective().kind() > v1::OBJECTIVE_KIND_CROSS_ENTROPY
                             ? kFloat * parts.block_weights + 2 * kLogitChunk
                             : 0;
  return model + teacher + parts.head + 4 * kLogitChunk + kept + one_block +
         parts.blocks * tokens * parts.hidden * kFloat + 2 * kFloat * parts.largest_projection;
}

/// The end-to-end stage of the spec's method; null where it has none or skips it.
const v1::EndToEndOptions* end_to_end_stage(const v1::JobSpec& spec) {
  const v1::EndToEndOptions* options = spec.method() == v1::METHOD_EFFICIENT_QAT ? &spec.e2e_qp()
                                       : spec.method() == v1::METHOD_DISTILLATION_QAT
                                           ? &spec.distillation()
                                           : nullptr;
  return options != nullptr && options->epochs() > 0 ? options : nullptr;
}

bool trains_blocks(const v1::JobSpec& spec) {
  return spec.method() == v1::METHOD_EFFICIENT_QAT && spec.block_ap().epochs() > 0;
}

/// Whether the start of each block is found from the windows that stream through the model.
bool initialiser_reads_windows(const v1::JobSpec& spec) {
  return spec.method() == v1::METHOD_GPTQ ||
         spec.initialisation().initializer() == v1::INITIALIZER_GPTQ ||
         spec.initialisation().activation_aware();
}

std::vector<StageMemory> stages_of(const v1::JobSpec& spec, const v1::Model& model,
                                   const Sums& sums, double packed_bytes) {
  const Parts parts = parts_of(model, sums);
  std::vector<StageMemory> stages;
  enum class Caches { kNone, kBeside };
  const auto add = [&](const std::string& name, double bytes, Caches caches) {
    stages.push_back({.stage = name,
                      .bytes = static_cast<int64_t>(kIdleEngine + kFragmentation * bytes),
                      .caches = caches == Caches::kBeside});
  };
  add("scoring", scoring_memory(spec, model, parts, packed_bytes), Caches::kNone);
  if (initialiser_reads_windows(spec)) {
    add("initialisation", initialisation_memory(parts, sums), Caches::kBeside);
  }
  if (trains_blocks(spec)) {
    add("block training", block_training_memory(spec, parts), Caches::kBeside);
  }
  if (const v1::EndToEndOptions* options = end_to_end_stage(spec)) {
    add("end-to-end training", end_to_end_memory(*options, spec, parts, sums, packed_bytes),
        Caches::kNone);
  }
  return stages;
}

}  // namespace

Footprint footprint(const v1::JobSpec& spec, const v1::Model& model, int64_t cache_budget_bytes) {
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
  const v1::EndToEndOptions* end_to_end = end_to_end_stage(spec);
  const double trained = end_to_end == nullptr                    ? 0
                         : end_to_end->weight_learning_rate() > 0 ? sums.projection_weights
                                                                  : sums.groups;

  Footprint result;
  result.original_bytes = model.size_bytes();
  result.artifact_bytes = static_cast<int64_t>(artifact);
  result.bits_per_weight =
      sums.quantized_weights > 0 ? sums.packed_bits / sums.quantized_weights : 0;
  result.stages = stages_of(spec, model, sums, packed_bytes);
  if (trains_blocks(spec) || initialiser_reads_windows(spec)) {
    result.cache_bytes =
        static_cast<int64_t>(2 * window_count(spec.calibration(), kDefaultMostCalibration) *
                             spec.calibration().sequence_length() * model.hidden_size() * kFloat);
  }
  result.spilled_bytes = std::max<int64_t>(0, result.cache_bytes - cache_budget_bytes);
  for (const StageMemory& stage : result.stages) {
    const int64_t in_memory = stage.caches ? result.cache_bytes - result.spilled_bytes : 0;
    result.memory_bytes = std::max(result.memory_bytes, stage.bytes + in_memory);
  }
  result.disk_bytes =
      result.spilled_bytes +
      static_cast<int64_t>(artifact + packed_bytes + checkpoints + 3 * kFloat * trained);
  for (const v1::TargetRuntime runtime :
       {v1::TARGET_RUNTIME_GPTQMODEL, v1::TARGET_RUNTIME_VLLM, v1::TARGET_RUNTIME_LLAMA_CPP}) {
    result.runtimes.push_back(runtime_support(runtime, spec, model));
  }
  return result;
}

}  // namespace qaas
