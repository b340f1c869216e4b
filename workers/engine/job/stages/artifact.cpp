#include "workers/engine/job/artifact.h"

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "workers/engine/job/scoring.h"
#include "workers/engine/job/stages/stages.h"
#include "workers/engine/report/report_files.h"

namespace qaas::stages {
namespace {

void add_host(v1::RunReport& report, torch::ScalarType compute) {
  const nlohmann::json host = nlohmann::json::parse(host_description(compute));
  for (const auto& [key, value] : host.items()) {
    (*report.mutable_host())[key] = value.is_string() ? value.get<std::string>() : value.dump();
  }
}

}  // namespace

absl::Status export_and_evaluate(JobState& state) {
  // 1. Write.
  state.reporter.start_phase(v1::PHASE_EXPORTING);
  absl::StatusOr<ArtifactWriter> writer = write_artifact(state);
  if (!writer.ok()) return writer.status();
  // 2. Read back and score what is on disk.
  state.reporter.start_phase(v1::PHASE_EVALUATING);
  const absl::StatusOr<LoadedArtifact> artifact = load_artifact(state.folders.out);
  if (!artifact.ok()) return artifact.status();
  const absl::StatusOr<EvaluationScores> scored = score(
      state, artifact->reader.config(), artifact->ends,
      [&](int64_t index) { return load_artifact_block(artifact->reader, index); },
      ScoreExtent::kTextsAndTasks);
  if (!scored.ok()) return scored.status();
  v1::Evaluation& evaluation = *state.report.mutable_evaluation();
  const LanguageModelScore& main = scored->texts.front().score;
  *evaluation.mutable_quantized() = to_proto(main);
  evaluation.set_measured_error(main.loss - state.original->texts.front().score.loss);
  for (int i = 0; i < evaluation.texts_size(); ++i) {
    *evaluation.mutable_texts(i)->mutable_quantized() =
        to_proto(scored->texts[size_t(i) + 1].score);
  }
  for (int i = 0; i < evaluation.tasks_size(); ++i) {
    *evaluation.mutable_tasks(i)->mutable_quantized() = to_proto(scored->tasks[size_t(i)].score);
  }
  evaluation.set_artifact_bytes(artifact->reader.weight_bytes());
  for (v1::StageScore& stage : *evaluation.mutable_stages()) {
    if (!stage.has_score()) *stage.mutable_score() = evaluation.quantized();
  }
  // 3. Report and manifest, and tell.
  if (const absl::Status status = state.inputs.model.check_unchanged(); !status.ok()) return status;
  add_host(state.report, state.compute);
  if (const absl::Status status = write_report(state.report, state.folders.out); !status.ok()) {
    return status;
  }
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
