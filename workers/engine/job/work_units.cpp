#include "workers/engine/job/work_units.h"

namespace qaas {

double score_units(const JobInputs& inputs) {
  return static_cast<double>(inputs.evaluation.numel() *
                             (inputs.model.config().num_hidden_layers + 1));
}

double block_units(const JobInputs& inputs) {
  return inputs.calibration.defined() ? static_cast<double>(inputs.calibration.numel()) : 0.0;
}

double block_passes(const v1::JobSpec& spec) {
  const int epochs = spec.method() == v1::METHOD_EFFICIENT_QAT ? spec.block_ap().epochs() : 0;
  return epochs > 0 ? 2 + kTrainingPasses * epochs : 0;
}

double end_to_end_passes(const v1::JobSpec& spec) {
  return spec.method() == v1::METHOD_EFFICIENT_QAT ? kTrainingPasses * spec.e2e_qp().epochs() : 0;
}

double total_units(const JobInputs& inputs) {
  const v1::JobSpec& spec = inputs.job.spec();
  const auto blocks = static_cast<double>(inputs.model.config().num_hidden_layers);
  const double scorings = block_passes(spec) > 0 ? 4 : 3;
  return scorings * score_units(inputs) +
         blocks * block_units(inputs) * (block_passes(spec) + end_to_end_passes(spec));
}

}  // namespace qaas
