#include <chrono>
#include <optional>
#include <utility>

#include "workers/engine/job/available_memory.h"
#include "workers/engine/job/stage_options.h"
#include "workers/engine/job/stages/stages.h"
#include "workers/engine/job/work_units.h"
#include "workers/engine/model/activation_cache.h"
#include "workers/engine/train/block_ap.h"

namespace qaas::stages {
namespace {

using Clock = std::chrono::steady_clock;
using Stage = BlockCheckpoints::Stage;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Where block-wise quantization is: the two residual streams at the block whose turn it is.
struct Streams {
  RopeTable rope;
  torch::Tensor full;       // full precision, [windows, seq, dim] float32
  torch::Tensor quantized;  // what the quantized blocks before this one make of it, likewise
};

/// Trains a prepared block in place. Returns the curve, every step.
absl::StatusOr<v1::TrainingCurve> train_block(JobState& state, int64_t index, DecoderBlock& block,
                                              const Streams& streams) {
  int64_t tokens = 0;
  const auto start = Clock::now();
  const StepSink on_step = [&](const TrainingStep& step) {
    tokens += step.tokens;
    state.reporter.meter().add(kTrainingPasses * static_cast<double>(step.tokens));
    v1::Progress progress;
    progress.set_block(static_cast<int32_t>(index));
    progress.set_block_count(static_cast<int32_t>(state.block_count()));
    progress.set_step(step.step);
    progress.set_step_count(step.step_count);
    progress.set_loss(step.loss);
    progress.set_tokens_per_second(static_cast<double>(tokens) / seconds_since(start));
    state.reporter.progress(std::move(progress));
  };
  const absl::StatusOr<TrainingReport> trained =
      block_ap(block, streams.quantized, streams.full, streams.rope,
               block_ap_options(state.spec, state.compute), on_step, state.stop);
  if (!trained.ok()) return trained.status();

  v1::EngineEvent event;
  v1::BlockFinished& finished = *event.mutable_block_finished();
  finished.set_block(static_cast<int32_t>(index));
  finished.set_block_count(static_cast<int32_t>(state.block_count()));
  finished.set_initial_loss(trained->initial_loss());
  finished.set_final_loss(trained->final_loss());
  finished.set_seconds(trained->seconds);
  finished.set_tokens_per_second(trained->tokens_per_second());
  state.reporter.send(event);

  v1::TrainingCurve curve = training_curve("block_ap", *trained);
  curve.set_block(static_cast<int32_t>(index));
  return curve;
}

/// Quantizes block `index` as the spec says: initialised, then trained where it trains.
absl::Status quantize_block(JobState& state, int64_t index, const Streams& streams) {
  absl::StatusOr<DecoderBlock> block = dense_block(*state.source, index);
  if (!block.ok()) return block.status();
  const absl::Status initialised =
      initialise_block(*block, grids_of_block(state.spec, index),
                       initialise_options(state.spec, index, state.compute), streams.quantized,
                       streams.rope, state.stop);
  if (!initialised.ok()) return initialised;
  apply_activation_quantization(*block, activations_of_block(state.spec, index));
  release_freed_memory();
  std::optional<v1::TrainingCurve> curve;
  if (block_training_passes(state.spec) > 0) {
    absl::StatusOr<v1::TrainingCurve> trained = train_block(state, index, *block, streams);
    if (!trained.ok()) return trained.status();
    curve = *std::move(trained);
    state.reporter.training_curve(*curve);
  }
  return state.blocks.put(
      Stage::kBlockTraining, index,
      convert_block(*block,
                    trains_weights_end_to_end(state.spec) ? Masters::kKeep : Masters::kDrop),
      curve);
}

}  // namespace

absl::Status quantize_blocks(JobState& state) {
  state.reporter.start_phase(v1::PHASE_BLOCK_TRAINING);
  const int64_t blocks = state.block_count();
  const double unit = block_units(state.inputs);
  const double passes = stream_passes(state.spec) + block_training_passes(state.spec);
  state.blocks.recover(Stage::kBlockTraining);
  // The streams are needed up to the last block that is still to be quantized.
  int64_t streamed = stream_passes(state.spec) > 0 ? blocks : 0;
  while (streamed > 0 && state.blocks.has(Stage::kBlockTraining, streamed - 1)) --streamed;
  ActivationCache cache(state.folders.checkpoints, state.folders.cache_bytes);
  Streams streams;
  if (streamed > 0) {
    streams.rope = make_rope_table(state.config(), state.inputs.calibration.size(1));
    for (torch::Tensor* stream : {&streams.full, &streams.quantized}) {
      const torch::Tensor& ids = state.inputs.calibration;
      absl::StatusOr<torch::Tensor> empty =
          cache.empty({ids.size(0), ids.size(1), state.config().hidden_size}, torch::kFloat32);
      if (!empty.ok()) return empty.status();
      *stream = *std::move(empty);
      embed_into(stream == &streams.full ? state.source_ends : state.ends, ids, *stream);
    }
  }
  v1::StageScore stage;
  stage.set_stage("block_ap");
  int64_t trained_tokens = 0;
  for (int64_t i = 0; i < blocks; ++i) {
    if (state.stop.stop_requested()) return absl::CancelledError("block training was stopped");
    const auto start = Clock::now();
    release_freed_memory();
    // 1. Target: the full-precision block on the full-precision stream.
    if (i < streamed) {
      absl::StatusOr<DecoderBlock> dense = dense_block(*state.source, i);
      if (!dense.ok()) return dense.status();
      run_block_into(*dense, streams.full, streams.full, streams.rope, state.compute);
      state.reporter.meter().add(unit);
    }
    // 2. The block, unless an earlier attempt left it.
    const bool recovered = state.blocks.has(Stage::kBlockTraining, i);
    if (recovered) {
      state.reporter.meter().skip(unit * (passes - (i < streamed ? 2 : 0)));
    } else if (const absl::Status status = quantize_block(state, i, streams); !status.ok()) {
      return status;
    }
    // 3. Advance the quantized stream too.
    if (i + 1 < streamed) {
      const absl::StatusOr<QuantizedBlock> finished = state.blocks.get(i);
      if (!finished.ok()) return finished.status();
      absl::StatusOr<DecoderBlock> packed = packed_block(state, i, *finished);
      if (!packed.ok()) return packed.status();
      run_block_into(*packed, streams.quantized, streams.quantized, streams.rope, state.compute);
    }
    if (i < streamed) state.reporter.meter().add(unit);
    // The stage's rate counts all of a block's work, targets and advancing included.
    if (!recovered && block_training_passes(state.spec) > 0) {
      stage.set_seconds(stage.seconds() + seconds_since(start));
      trained_tokens += state.blocks.curve(Stage::kBlockTraining, i)->tokens();
    }
    const auto& curve = state.blocks.curve(Stage::kBlockTraining, i);
    if (curve.has_value()) *state.report.add_curves() = *curve;
  }
  if (block_training_passes(state.spec) == 0) return absl::OkStatus();
  if (stage.seconds() > 0) {
    stage.set_tokens_per_second(static_cast<double>(trained_tokens) / stage.seconds());
  }
  return score_stage(state, std::move(stage));
}

}  // namespace qaas::stages
