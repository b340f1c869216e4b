#include "workers/engine/job/stage_options.h"

#include "proto/spec/job_spec.h"
#include "workers/engine/model/decoder.h"

namespace qaas {

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
  return options;
}

EndToEndOptions end_to_end_options(const v1::JobSpec& spec, torch::ScalarType compute) {
  const v1::EndToEndOptions& from = spec.e2e_qp();
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
          .seed = spec.seed(),
          .compute = compute};
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

}  // namespace qaas
