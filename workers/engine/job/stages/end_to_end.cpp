#include "workers/engine/train/end_to_end.h"

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "workers/engine/job/stage_options.h"
#include "workers/engine/job/stages/stages.h"
#include "workers/engine/job/work_units.h"

namespace qaas::stages {
namespace {

using Stage = BlockCheckpoints::Stage;

}  // namespace

absl::Status train_end_to_end(JobState& state, const v1::EndToEndOptions& options,
                              const std::string& name) {
  if (options.epochs() == 0) return absl::OkStatus();
  state.reporter.start_phase(v1::PHASE_END_TO_END_TRAINING);
  const int64_t count = state.block_count();
  // Scored as part of the artifact: see export_and_evaluate.
  v1::StageScore& stage = *state.report.mutable_evaluation()->add_stages();
  stage.set_stage(name);
  state.blocks.recover(Stage::kEndToEnd);
  bool finished = true;
  for (int64_t i = 0; i < count; ++i) finished = finished && state.blocks.has(Stage::kEndToEnd, i);
  if (finished) {
    state.reporter.meter().skip(static_cast<double>(count) * block_units(state.inputs) *
                                end_to_end_passes(options));
    if (const auto& curve = state.blocks.curve(Stage::kEndToEnd, 0); curve.has_value()) {
      *state.report.add_curves() = *curve;
    }
    return absl::OkStatus();
  }
  std::vector<DecoderBlock> blocks;
  for (int64_t i = 0; i < count; ++i) {
    absl::StatusOr<QuantizedBlock> quantized = state.blocks.get(i);
    if (!quantized.ok()) return quantized.status();
    absl::StatusOr<DecoderBlock> packed = packed_block(state, i, *quantized);
    if (!packed.ok()) return packed.status();
    blocks.push_back(*std::move(packed));
  }
  int64_t tokens = 0;
  const auto start = std::chrono::steady_clock::now();
  const StepSink on_step = [&](const TrainingStep& step) {
    tokens += step.tokens;
    state.reporter.meter().add(kTrainingPasses * static_cast<double>(count * step.tokens));
    v1::Progress progress;
    progress.set_step(step.step);
    progress.set_step_count(step.step_count);
    progress.set_loss(step.loss);
    progress.set_tokens_per_second(
        static_cast<double>(tokens) /
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    state.reporter.progress(std::move(progress));
  };
  const absl::StatusOr<TrainingReport> trained =
      qaas::train_end_to_end(state.ends, blocks, state.inputs.calibration,
                             make_rope_table(state.config(), state.inputs.calibration.size(1)),
                             end_to_end_options(options, state.spec.seed(), state.compute), nullptr,
                             {}, on_step, state.stop);
  if (!trained.ok()) return trained.status();
  v1::TrainingCurve curve = training_curve(name, *trained);
  for (int64_t i = 0; i < count; ++i) {
    const QuantizedBlock block = repack_block(blocks[size_t(i)]);
    blocks[size_t(i)] = nullptr;
    // The whole model's curve goes with its first block.
    const absl::Status saved =
        state.blocks.put(Stage::kEndToEnd, i, block, i == 0 ? std::optional(curve) : std::nullopt);
    if (!saved.ok()) return saved;
  }
  stage.set_seconds(trained->seconds);
  stage.set_tokens_per_second(trained->tokens_per_second());
  *state.report.add_curves() = std::move(curve);
  return absl::OkStatus();
}

}  // namespace qaas::stages
