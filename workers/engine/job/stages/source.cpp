#include <system_error>

#include <absl/strings/str_cat.h>

#include "workers/engine/job/artifact.h"
#include "workers/engine/job/stage_options.h"
#include "workers/engine/job/stages/stages.h"
#include "workers/engine/quant/rotation.h"

namespace qaas::stages {
namespace {

constexpr char kRotatedFolder[] = "rotated-model";

/// Makes state.source a rotated copy of the checkpoint, made anew by every attempt: the same seed
/// gives the same bytes.
absl::Status rotate_source(JobState& state) {
  const std::filesystem::path folder = state.folders.checkpoints / kRotatedFolder;
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat(folder.string(), ": ", error.message()));
  }
  const RotationProgress progress = [&](int64_t done, int64_t count) {
    v1::Progress progress;
    progress.set_step(done);
    progress.set_step_count(count);
    state.reporter.progress(std::move(progress));
  };
  const absl::Status rotated = rotate_checkpoint(state.inputs.model, folder,
                                                 {.seed = state.spec.seed()}, progress, state.stop);
  if (!rotated.ok()) return rotated;
  absl::StatusOr<ModelFolder> model = ModelFolder::open(folder);
  if (!model.ok()) return absl::InternalError(model.status().message());
  state.rotated = std::make_unique<ModelFolder>(*std::move(model));
  state.source = state.rotated.get();
  return absl::OkStatus();
}

}  // namespace

absl::Status prepare_source(JobState& state) {
  state.original_ends = load_ends(state.inputs.model.config(), source_tensors(state.inputs.model));
  if (state.spec.initialisation().rotate()) {
    state.reporter.start_phase(v1::PHASE_PREPARING);
    if (const absl::Status status = rotate_source(state); !status.ok()) return status;
  }
  state.source_ends = load_ends(state.config(), source_tensors(*state.source));
  state.ends = quantize_ends(state.source_ends, ends_quantization(state.spec, state.config()));
  return absl::OkStatus();
}

}  // namespace qaas::stages
