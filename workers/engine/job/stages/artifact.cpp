#include "workers/engine/job/artifact.h"

#include <string>
#include <vector>

#include "workers/engine/job/scoring.h"
#include "workers/engine/job/stages/stages.h"

namespace qaas::stages {

absl::Status export_and_evaluate(JobState& state) {
  // 1. Write.
  state.reporter.start_phase(v1::PHASE_EXPORTING);
  absl::StatusOr<ArtifactWriter> writer = write_artifact(state);
  if (!writer.ok()) return writer.status();
  // 2. Read back and score what is on disk.
  state.reporter.start_phase(v1::PHASE_EVALUATING);
  const absl::StatusOr<LoadedArtifact> artifact = load_artifact(state.folders.out);
  if (!artifact.ok()) return artifact.status();
  const absl::StatusOr<ScoredModel> scored =
      score(state, artifact->reader.config(), artifact->ends,
            [&](int64_t index) { return load_artifact_block(artifact->reader, index); });
  if (!scored.ok()) return scored.status();
  v1::Evaluation& evaluation = *state.report.mutable_evaluation();
  *evaluation.mutable_quantized() = to_proto(scored->score);
  evaluation.set_measured_error(scored->score.loss - state.original->score.loss);
  evaluation.set_artifact_bytes(artifact->reader.weight_bytes());
  for (v1::StageScore& stage : *evaluation.mutable_stages()) {
    if (!stage.has_score()) *stage.mutable_score() = evaluation.quantized();
  }
  // 3. Manifest, and tell.
  if (const absl::Status status = state.inputs.model.check_unchanged(); !status.ok()) return status;
  absl::StatusOr<std::vector<std::string>> files = write_manifest(
      *writer, state.inputs, evaluation,
      {.host = host_description(state.compute), .other_host = state.blocks.other_host()},
      state.folders.out);
  if (!files.ok()) return files.status();
  v1::EngineEvent event;
  *event.mutable_evaluation() = evaluation;
  state.reporter.send(event);
  event.Clear();
  for (const std::string& file : *files) event.mutable_artifact_written()->add_files(file);
  state.reporter.send(event);
  return absl::OkStatus();
}

}  // namespace qaas::stages
