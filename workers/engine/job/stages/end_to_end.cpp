#include "workers/engine/train/end_to_end.h"

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include "workers/engine/job/artifact.h"
#include "workers/engine/job/stage_options.h"
#include "workers/engine/job/stages/stages.h"
#include "workers/engine/job/work_units.h"
#include "workers/engine/model/activation_cache.h"

namespace qaas::stages {
namespace {

using Stage = BlockCheckpoints::Stage;

/// The blocks to train: with masters where weights train, else packed.
absl::StatusOr<std::vector<DecoderBlock>> trainable_blocks(const JobState& state) {
  std::vector<DecoderBlock> blocks;
  for (int64_t i = 0; i < state.block_count(); ++i) {
    const absl::StatusOr<QuantizedBlock> quantized = state.blocks.get(i);
    if (!quantized.ok()) return quantized.status();
    if (const absl::Status status = state.source->check_unchanged(); !status.ok()) return status;
    blocks.push_back(
        make_trainable_block(state.config(), source_tensors(*state.source), i, *quantized));
  }
  return blocks;
}

/// The teacher's last residual stream for every calibration window, [windows, seq, dim] float32.
absl::StatusOr<torch::Tensor> teacher_residual(JobState& state, ActivationCache& cache) {
  state.reporter.start_phase(v1::PHASE_PREPARING);
  const torch::Tensor& ids = state.inputs.calibration;
  absl::StatusOr<torch::Tensor> residual =
      cache.empty({ids.size(0), ids.size(1), state.config().hidden_size}, torch::kFloat32);
  if (!residual.ok()) return residual.status();
  const auto blocks = [&](int64_t index) {
    state.reporter.meter().add(block_units(state.inputs));
    return dense_block(*state.source, index);
  };
  const absl::Status status = run_teacher(state.source_ends, state.block_count(), blocks, ids,
                                          make_rope_table(state.config(), ids.size(1)),
                                          state.compute, state.stop, *residual);
  if (!status.ok()) return status;
  return residual;
}

/// Tells `sink` of every step, with the rate so far.
StepSink step_reports(JobState& state) {
  const auto start = std::chrono::steady_clock::now();
  return [&state, start, tokens = int64_t{0}](const TrainingStep& step) mutable {
    tokens += step.tokens;
    state.reporter.meter().add(kTrainingPasses *
                               static_cast<double>(state.block_count() * step.tokens));
    v1::Progress progress;
    progress.set_step(step.step);
    progress.set_step_count(step.step_count);
    progress.set_loss(step.loss);
    progress.set_tokens_per_second(
        static_cast<double>(tokens) /
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    state.reporter.progress(std::move(progress));
  };
}

/// Takes the stage from an earlier attempt's checkpoints; false where it is not all there.
bool recover_stage(JobState& state, const v1::EndToEndOptions& options) {
  state.blocks.recover(Stage::kEndToEnd);
  for (int64_t i = 0; i < state.block_count(); ++i) {
    if (!state.blocks.has(Stage::kEndToEnd, i)) return false;
  }
  state.reporter.meter().skip(static_cast<double>(state.block_count()) * block_units(state.inputs) *
                              end_to_end_passes(options));
  if (const auto& curve = state.blocks.curve(Stage::kEndToEnd, 0); curve.has_value()) {
    *state.report.add_curves() = *curve;
  }
  return true;
}

/// Where an earlier attempt stood in the middle of the training.
std::optional<EndToEndState> earlier_state(JobState& state) {
  auto loaded = state.checkpoints.load_state();
  if (!loaded.ok()) {
    state.reporter.warn(absl::StrCat(loaded.status().message(), "; training again"));
    return std::nullopt;
  }
  if (!loaded->has_value()) return std::nullopt;
  if ((*loaded)->other_host) state.blocks.note_other_host();
  return std::move((*loaded)->state);
}

absl::Status save_state(JobState& state, const EndToEndState& now) {
  absl::StatusOr<std::string> file = state.checkpoints.save_state(now);
  if (!file.ok()) return file.status();
  v1::EngineEvent event;
  event.mutable_checkpoint_written()->set_file(*std::move(file));
  event.mutable_checkpoint_written()->set_description(
      absl::StrFormat("end-to-end training, step %d", now.step));
  state.reporter.send(event);
  return absl::OkStatus();
}

}  // namespace

absl::Status train_end_to_end(JobState& state, const v1::EndToEndOptions& options,
                              const std::string& name) {
  // Scored as part of the artifact: see export_and_evaluate.
  v1::StageScore& told = *state.report.mutable_evaluation()->add_stages();
  told.set_stage(name);
  if (recover_stage(state, options)) return absl::OkStatus();

  // 1. Student and teacher.
  absl::StatusOr<std::vector<DecoderBlock>> blocks = trainable_blocks(state);
  if (!blocks.ok()) return blocks.status();
  const EndToEndOptions training = end_to_end_options(options, state.spec, state.compute);
  ActivationCache cache(state.folders.checkpoints, state.folders.cache_bytes);
  std::optional<Teacher> teacher;
  if (training.objective.needs_teacher()) {
    absl::StatusOr<torch::Tensor> residual = teacher_residual(state, cache);
    if (!residual.ok()) return residual.status();
    teacher.emplace(Teacher{.ends = state.source_ends, .residual = *std::move(residual)});
  }

  // 2. Train, from where an earlier attempt stood.
  state.reporter.start_phase(v1::PHASE_END_TO_END_TRAINING);
  const std::optional<EndToEndState> earlier = earlier_state(state);
  const EndToEndCheckpoints checkpoints{
      .resume_from = earlier.has_value() ? &*earlier : nullptr,
      .save = [&](const EndToEndState& now) { return save_state(state, now); },
      .every_steps = options.checkpoint_steps()};
  const absl::StatusOr<TrainingReport> trained = qaas::train_end_to_end(
      state.ends, *blocks, state.inputs.calibration,
      make_rope_table(state.config(), state.inputs.calibration.size(1)), training,
      teacher.has_value() ? &*teacher : nullptr, checkpoints, step_reports(state), state.stop);
  if (!trained.ok()) return trained.status();

  // 3. Keep. The whole model's curve goes with its first block.
  const v1::TrainingCurve curve = training_curve(name, *trained);
  for (int64_t i = 0; i < state.block_count(); ++i) {
    DecoderBlock& block = (*blocks)[size_t(i)];
    const absl::Status saved = state.blocks.put(Stage::kEndToEnd, i, convert_block(block),
                                                i == 0 ? std::optional(curve) : std::nullopt);
    if (!saved.ok()) return saved;
    block = nullptr;
  }
  told.set_seconds(trained->seconds);
  told.set_tokens_per_second(trained->tokens_per_second());
  state.reporter.training_curve(curve);
  *state.report.add_curves() = curve;
  return absl::OkStatus();
}

}  // namespace qaas::stages
