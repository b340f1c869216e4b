#include "workers/engine/job/stage_options.h"

#include "proto/spec/job_spec.h"
#include "workers/engine/model/decoder.h"

namespace qaas {
namespace {

/// Of activation clip factors, which lie between 0 and 1: a few hundred steps can halve one.
constexpr double kActivationClipRate = 1e-3;

}  // namespace

BlockApOptions block_ap_options(const v1::JobSpec& spec, torch::ScalarType compute) {
  const v1::BlockApOptions& from = spec.block_ap();
  AdamWOptions adam{.beta1 = from.adam_beta1(),
                    .beta2 = from.adam_beta2(),
                    .epsilon = from.adam_epsilon(),
                    .weight_decay = from.weight_decay()};
  BlockApOptions options{.epochs = from.epochs(),
                         .batch_size = from.batch_size(),
                         .scale = adam,
                         .zero_point = adam,
                         .weight = adam,
                         .norm = adam,
                         .schedule = {.kind = LearningRateShape::Kind::kCosine,
                                      .final_ratio = from.final_learning_rate_ratio()},
                         .clip_norm = from.gradient_clip_norm(),
                         .shuffle = from.shuffle(),
                         .seed = spec.seed(),
                         .compute = compute};
  options.scale.learning_rate = from.quant_learning_rate();
  options.zero_point.learning_rate = from.quant_learning_rate();
  options.weight.learning_rate = from.weight_learning_rate();
  options.norm.learning_rate = from.weight_learning_rate();
  options.activation_clip = adam;
  options.activation_clip.learning_rate = spec.activations().learn_clip() ? kActivationClipRate : 0;
  return options;
}

EndToEndOptions end_to_end_options(const v1::EndToEndOptions& from, uint64_t seed,
                                   torch::ScalarType compute) {
  const bool constant = from.schedule() == v1::LEARNING_RATE_SCHEDULE_CONSTANT;
  return {.epochs = from.epochs(),
          .batch_size = from.batch_size(),
          .micro_batch_size = from.micro_batch_size(),
          .scale = {.learning_rate = from.learning_rate(),
                    .beta1 = from.adam_beta1(),
                    .beta2 = from.adam_beta2(),
                    .epsilon = from.adam_epsilon(),
                    .weight_decay = from.weight_decay()},
          .schedule = {.kind = constant ? LearningRateShape::Kind::kConstant
                                        : LearningRateShape::Kind::kCosine,
                       .warmup_ratio = from.warmup_ratio()},
          .clip_norm = from.gradient_clip_norm(),
          .shuffle = from.shuffle(),
          .seed = seed,
          .compute = compute};
}

v1::TrainingCurve training_curve(const std::string& stage, const TrainingReport& report) {
  v1::TrainingCurve curve;
  curve.set_stage(stage);
  for (size_t i = 0; i < report.losses.size(); ++i) {
    curve.add_steps(static_cast<int64_t>(i + 1));
    curve.add_losses(report.losses[i]);
  }
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
