#include "workers/engine/job/work_units.h"

#include "proto/spec/grids.h"

namespace qaas {

double score_units(const JobInputs& inputs) {
  int64_t tokens = 0;
  for (const torch::Tensor& text : inputs.evaluation.texts) tokens += text.numel();
  return static_cast<double>(tokens * (inputs.model.config().num_hidden_layers + 1));
}

double block_units(const JobInputs& inputs) {
  return inputs.calibration.defined() ? static_cast<double>(inputs.calibration.numel()) : 0.0;
}

double stream_passes(const v1::JobSpec& spec) {
  return block_training_passes(spec) > 0 || uses_gptq(spec) ||
                 (spec.initialisation().activation_aware() && uses_clip_search(spec))
             ? 2
             : 0;
}

double block_training_passes(const v1::JobSpec& spec) {
  return spec.method() == v1::METHOD_EFFICIENT_QAT ? kTrainingPasses * spec.block_ap().epochs() : 0;
}

double end_to_end_passes(const v1::EndToEndOptions& options) {
  return kTrainingPasses * options.epochs();
}

double total_units(const JobInputs& inputs) {
  const v1::JobSpec& spec = inputs.job.spec();
  const auto blocks = static_cast<double>(inputs.model.config().num_hidden_layers);
  const double scorings = block_training_passes(spec) > 0 ? 4 : 3;
  double passes = stream_passes(spec) + block_training_passes(spec);
  if (spec.method() == v1::METHOD_EFFICIENT_QAT) passes += end_to_end_passes(spec.e2e_qp());
  if (spec.method() == v1::METHOD_DISTILLATION_QAT) {
    passes += end_to_end_passes(spec.distillation());
  }
  return scorings * score_units(inputs) + blocks * block_units(inputs) * passes;
}

}  // namespace qaas
