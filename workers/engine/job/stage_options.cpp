#include "workers/engine/job/stage_options.h"

#include <algorithm>
#include <vector>

#include "proto/spec/grids.h"
#include "proto/spec/job_spec.h"
#include "workers/engine/model/decoder.h"

namespace qaas {
namespace {

/// Of activation clip factors, which lie between 0 and 1: a few hundred steps can halve one.
constexpr double kActivationClipRate = 1e-3;

/// The AdamW constants both training stages share, at `learning_rate`.
template <class Options>
AdamWOptions adam(const Options& from, double learning_rate) {
  return {.learning_rate = learning_rate,
          .beta1 = from.adam_beta1(),
          .beta2 = from.adam_beta2(),
          .epsilon = from.adam_epsilon(),
          .weight_decay = from.weight_decay()};
}

LearningRateUnit unit_of(v1::LearningRateUnit unit) {
  return unit == v1::LEARNING_RATE_UNIT_STEP_SIZE ? LearningRateUnit::kStepSize
                                                  : LearningRateUnit::kAbsolute;
}

BlockApTrainable trainable_of(v1::BlockApTrainable trainable) {
  switch (trainable) {
    case v1::BLOCK_AP_TRAINABLE_SCALE_ZERO:
      return BlockApTrainable::kScaleZero;
    case v1::BLOCK_AP_TRAINABLE_CLIPPING:
      return BlockApTrainable::kClipping;
    case v1::BLOCK_AP_TRAINABLE_ROUNDING:
      return BlockApTrainable::kRounding;
    case v1::BLOCK_AP_TRAINABLE_SCALE_ZERO_ROUNDING:
      return BlockApTrainable::kScaleZeroRounding;
    case v1::BLOCK_AP_TRAINABLE_WEIGHT:
      return BlockApTrainable::kWeight;
    default:
      return BlockApTrainable::kScaleZeroWeight;
  }
}

Initializer initializer_of(v1::Initializer initializer) {
  switch (initializer) {
    case v1::INITIALIZER_CLIP_SEARCH:
      return Initializer::kClipSearch;
    case v1::INITIALIZER_GPTQ:
      return Initializer::kGptq;
    default:
      return Initializer::kMinMax;
  }
}

Objective objective_of(const v1::Objective& from) {
  Objective objective;
  switch (from.kind()) {
    case v1::OBJECTIVE_KIND_FORWARD_KL:
      objective.kind = Objective::Kind::kForwardKl;
      break;
    case v1::OBJECTIVE_KIND_REVERSE_KL:
      objective.kind = Objective::Kind::kReverseKl;
      break;
    case v1::OBJECTIVE_KIND_CAKLD:
      objective.kind = Objective::Kind::kCakld;
      break;
    case v1::OBJECTIVE_KIND_JSD:
      objective.kind = Objective::Kind::kJsd;
      objective.beta = from.jsd_beta();
      break;
    case v1::OBJECTIVE_KIND_SOFT_CROSS_ENTROPY:
      objective.kind = Objective::Kind::kSoftCrossEntropy;
      break;
    case v1::OBJECTIVE_KIND_TSLD:
      objective.kind = Objective::Kind::kTsld;
      objective.tsld_temperature = from.tsld_tau();
      break;
    default:
      return objective;  // cross-entropy has no options
  }
  objective.temperature = from.temperature();
  objective.cross_entropy_weight = from.cross_entropy_weight();
  return objective;
}

}  // namespace

BlockApOptions block_ap_options(const v1::JobSpec& spec, torch::ScalarType compute) {
  const v1::BlockApOptions& from = spec.block_ap();
  return {.trainable = trainable_of(from.trainable()),
          .epochs = from.epochs(),
          .batch_size = from.batch_size(),
          .unit = unit_of(from.learning_rate_unit()),
          .scale = adam(from, from.quant_learning_rate()),
          .zero_point = adam(from, from.zero_point_learning_rate()),
          .weight = adam(from, from.weight_learning_rate()),
          .norm = adam(from, from.norm_learning_rate()),
          .activation_clip = adam(from, spec.activations().learn_clip() ? kActivationClipRate : 0),
          .schedule = {.kind = LearningRateShape::Kind::kCosine,
                       .final_ratio = from.final_learning_rate_ratio()},
          .clip_norm = from.gradient_clip_norm(),
          .shuffle = from.shuffle(),
          .seed = spec.seed(),
          .validation_windows = from.validation_samples(),
          .restore_best = from.restore_best(),
          .patience = from.early_stop_patience(),
          .compute = compute};
}

EndToEndOptions end_to_end_options(const v1::EndToEndOptions& from, const v1::JobSpec& spec,
                                   torch::ScalarType compute) {
  const bool constant = from.schedule() == v1::LEARNING_RATE_SCHEDULE_CONSTANT;
  const std::vector<std::string> frozen(from.freeze().begin(), from.freeze().end());
  return {.epochs = from.epochs(),
          .batch_size = from.batch_size(),
          .micro_batch_size = from.micro_batch_size(),
          .objective = objective_of(from.objective()),
          .unit = unit_of(from.learning_rate_unit()),
          .scale = adam(from, from.learning_rate()),
          .zero_point = adam(from, from.zero_point_learning_rate()),
          .weight = adam(from, from.weight_learning_rate()),
          .norm = adam(from, from.norm_learning_rate()),
          .final_norm = adam(from, 0),
          .activation_clip = adam(from, spec.activations().learn_clip() ? kActivationClipRate : 0),
          .frozen =
              [frozen](int64_t block, const std::string& projection) {
                const std::string name = block_prefix(block) + projection;
                return std::any_of(frozen.begin(), frozen.end(), [&](const std::string& pattern) {
                  return pattern_matches(pattern, name);
                });
              },
          .schedule = {.kind = constant ? LearningRateShape::Kind::kConstant
                                        : LearningRateShape::Kind::kCosine,
                       .warmup_ratio = from.warmup_ratio()},
          .clip_norm = from.gradient_clip_norm(),
          .shuffle = from.shuffle(),
          .seed = spec.seed(),
          .validation_windows = from.validation_samples(),
          .restore_best = from.restore_best(),
          .patience = from.early_stop_patience(),
          .compute = compute};
}

bool trains_weights_end_to_end(const v1::JobSpec& spec) {
  const v1::EndToEndOptions& options =
      spec.method() == v1::METHOD_DISTILLATION_QAT ? spec.distillation() : spec.e2e_qp();
  return options.epochs() > 0 && options.weight_learning_rate() > 0;
}

InitialiseOptions initialise_options(const v1::JobSpec& spec, int64_t index,
                                     torch::ScalarType compute) {
  const v1::Initialisation& from = spec.initialisation();
  return {
      .initializer =
          [&spec, prefix = block_prefix(index)](const std::string& name) {
            return initializer_of(initializer_for(spec, prefix + name));
          },
      .gptq_qparams = from.gptq_qparams() == v1::INITIALIZER_MIN_MAX ? GptqQparams::kMinMax
                                                                     : GptqQparams::kClipSearch,
      .clip_importance =
          from.activation_aware() ? ClipImportance::kMeanSquare : ClipImportance::kUniform,
      .gptq = {.damping = from.gptq_damping(), .activation_order = from.gptq_activation_order()},
      .compute = compute};
}

v1::TrainingCurve training_curve(const std::string& stage, const TrainingReport& report) {
  v1::TrainingCurve curve;
  curve.set_stage(stage);
  for (size_t i = 0; i < report.losses.size(); ++i) {
    curve.add_steps(static_cast<int64_t>(i + 1));
    curve.add_losses(report.losses[i]);
  }
  curve.mutable_validation_losses()->Add(report.validation_losses.begin(),
                                         report.validation_losses.end());
  curve.set_kept_epoch(static_cast<int32_t>(report.kept_epoch));
  curve.set_seconds(report.seconds);
  curve.set_tokens_per_second(report.tokens_per_second());
  curve.set_tokens(report.tokens);
  return curve;
}

GridOf grids_of_block(const v1::JobSpec& spec, int64_t index) {
  return [&spec, prefix = block_prefix(index)](const std::string& name,
                                               int64_t input_size) -> std::optional<AffineGrid> {
    const ProjectionGrid grid = grid_for(spec, prefix + name, input_size);
    if (grid.bits == 0) return std::nullopt;
    return AffineGrid{
        .bits = grid.bits, .group_size = grid.group_size, .symmetric = grid.symmetric};
  };
}

ActivationOf activations_of_block(const v1::JobSpec& spec, int64_t index) {
  return [&spec, prefix = block_prefix(index)](
             const std::string& name) -> std::optional<ActivationQuantizer> {
    if (!spec.has_activations()) return std::nullopt;
    if (grid_for(spec, prefix + name, /*input_size=*/0).bits == 0) return std::nullopt;
    const v1::ActivationQuantization& from = spec.activations();
    const bool down = name == "mlp.down_proj" && from.has_down_proj_bits();
    return ActivationQuantizer{
        .grid = {.bits = down ? from.down_proj_bits() : from.bits(),
                 .group_size = from.has_group_size() ? from.group_size() : -1}};
  };
}

EndsQuantization ends_quantization(const v1::JobSpec& spec, const ModelConfig& config) {
  EndsQuantization what{.embedding_bits = spec.embedding_bits()};
  if (spec.lm_head_bits() != 0) {
    const int64_t group_size = spec.weights().group_size();
    what.head = AffineGrid{.bits = spec.lm_head_bits(),
                           .group_size = group_size == -1 ? config.hidden_size : group_size,
                           .symmetric = spec.weights().symmetric()};
  }
  return what;
}

}  // namespace qaas
