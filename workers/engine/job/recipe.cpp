#include "workers/engine/job/recipe.h"

#include <utility>

#include <absl/strings/str_cat.h>

#include "storage/checkpoint/digest.h"
#include "workers/engine/job/artifact.h"
#include "workers/engine/job/job_state.h"
#include "workers/engine/job/stages/stages.h"
#include "workers/engine/job/version.h"
#include "workers/engine/job/work_units.h"
#include "workers/engine/model/compute_type.h"

namespace qaas {
namespace {

/// Same spec, model, data and engine: the same work. The host is told apart, not refused.
absl::StatusOr<BlockCheckpoints::Identity> checkpoint_identity(const JobInputs& inputs,
                                                               torch::ScalarType compute) {
  std::string work = absl::StrCat(kEngineVersion, "\n", inputs.model_digest, "\n");
  for (const auto& [name, digest] : inputs.dataset_digests) absl::StrAppend(&work, digest, "\n");
  absl::StrAppend(&work, inputs.job.spec().SerializeAsString());
  absl::StatusOr<std::string> fingerprint = sha256_text(work);
  if (!fingerprint.ok()) return fingerprint.status();
  return BlockCheckpoints::Identity{.fingerprint = *std::move(fingerprint),
                                    .host = host_description(compute)};
}

/// The end-to-end stage of the spec's method and its name; null where it has none.
std::pair<const v1::EndToEndOptions*, std::string> end_to_end_stage(const v1::JobSpec& spec) {
  switch (spec.method()) {
    case v1::METHOD_EFFICIENT_QAT:
      return {&spec.e2e_qp(), "e2e_qp"};
    case v1::METHOD_DISTILLATION_QAT:
      return {&spec.distillation(), "distillation"};
    default:
      return {nullptr, ""};
  }
}

}  // namespace

absl::Status run_recipe(const JobInputs& inputs, const RunFolders& folders, const EventSink& sink,
                        std::stop_token stop) {
  const torch::ScalarType compute = training_compute_type();
  absl::StatusOr<BlockCheckpoints::Identity> identity = checkpoint_identity(inputs, compute);
  if (!identity.ok()) return identity.status();
  const v1::JobSpec& spec = inputs.job.spec();
  const v1::EndToEndOptions* end_to_end = end_to_end_stage(spec).first;
  const bool needs_all = end_to_end != nullptr && end_to_end->epochs() > 0;

  JobState state(inputs, folders, sink, stop, compute, *std::move(identity),
                 needs_all ? FinishedBlocks::Keep::kInMemory : FinishedBlocks::Keep::kOnDisk);
  using Step = absl::Status (*)(JobState&);
  for (const Step stage : {stages::prepare_source, stages::score_baselines, stages::measure_signals,
                           stages::quantize_blocks}) {
    if (const absl::Status status = stage(state); !status.ok()) return status;
  }
  if (needs_all) {
    // state.spec, not the submitted one: automatic choices freeze projections.
    const auto [options, stage] = end_to_end_stage(state.spec);
    const absl::Status status = stages::train_end_to_end(state, *options, stage);
    if (!status.ok()) return status;
  }
  if (const absl::Status status = stages::finish_signals(state); !status.ok()) return status;
  return stages::export_and_evaluate(state);
}

}  // namespace qaas
