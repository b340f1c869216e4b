#include "workers/engine/job/recipe.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include "storage/checkpoint/digest.h"
#include "workers/engine/job/artifact.h"
#include "workers/engine/job/stage_options.h"
#include "workers/engine/job/version.h"
#include "workers/engine/job/work_units.h"
#include "workers/engine/model/compute_type.h"
#include "workers/engine/train/block_ap.h"
#include "workers/engine/train/end_to_end.h"

namespace qaas {
namespace {

v1::ModelScore to_proto(const LanguageModelScore& score) {
  v1::ModelScore proto;
  proto.set_loss(score.loss);
  proto.set_perplexity(score.perplexity);
  proto.set_kl_divergence(score.kl_divergence);
  return proto;
}

}  // namespace

Recipe::Recipe(const JobInputs& inputs, const RunFolders& folders, const EventSink& sink,
               std::stop_token stop)
    : inputs_(inputs),
      spec_(inputs.job.spec()),
      folders_(folders),
      sink_(sink),
      stop_(std::move(stop)),
      compute_(training_compute_type()),
      block_count_(inputs.model.config().num_hidden_layers),
      score_units_(score_units(inputs)),
      block_units_(block_units(inputs)),
      meter_(total_units(inputs)) {}

absl::Status Recipe::run() {
  // Same spec, model, data and engine: the same work. The host is told apart, not refused.
  std::string work = absl::StrCat(kEngineVersion, "\n", inputs_.model_digest, "\n");
  for (const auto& [name, digest] : inputs_.dataset_digests) absl::StrAppend(&work, digest, "\n");
  absl::StrAppend(&work, spec_.SerializeAsString());
  absl::StatusOr<std::string> fingerprint = sha256_text(work);
  if (!fingerprint.ok()) return fingerprint.status();
  checkpoints_.emplace(folders_.checkpoints,
                       BlockCheckpoints::Identity{.fingerprint = *std::move(fingerprint),
                                                  .host = host_description(compute_)});
  ends_ = load_ends(inputs_.model.config(), source_tensors(inputs_.model));

  if (const absl::Status status = score_baselines(); !status.ok()) return status;
  if (const absl::Status status = quantize_blocks(); !status.ok()) return status;
  if (const absl::Status status = train_scales(); !status.ok()) return status;
  return write_and_evaluate();
}

absl::StatusOr<DecoderBlock> Recipe::dense_block(int64_t index) const {
  if (const absl::Status status = inputs_.model.check_unchanged(); !status.ok()) return status;
  return load_block(inputs_.model.config(), source_tensors(inputs_.model), index);
}

absl::StatusOr<DecoderBlock> Recipe::packed_block(int64_t index,
                                                  const QuantizedBlock& quantized) const {
  if (const absl::Status status = inputs_.model.check_unchanged(); !status.ok()) return status;
  return make_packed_block(inputs_.model.config(), source_tensors(inputs_.model), index, quantized);
}

absl::StatusOr<ScoredModel> Recipe::score(const ModelConfig& config, const ModelEnds& ends,
                                          const BlockSource& source) {
  double done = 0;
  const auto advance = [&](double fraction) {
    meter_.add((fraction - done) * score_units_);
    done = fraction;
  };
  const ScoreProgress progress = [&](double fraction) {
    advance(fraction);
    v1::Progress progress;
    progress.set_step(std::lround(fraction * static_cast<double>(block_count_ + 1)));
    progress.set_step_count(block_count_ + 1);
    report(std::move(progress));
  };
  absl::StatusOr<ScoredModel> scored =
      score_model(ends, block_count_, source, inputs_.evaluation,
                  make_rope_table(config, inputs_.evaluation.size(1)), ends_,
                  original_.has_value() ? &*original_ : nullptr, progress, stop_);
  advance(1);
  return scored;
}

absl::Status Recipe::score_baselines() {
  start_phase(v1::PHASE_BASELINE);
  const ModelConfig& config = inputs_.model.config();
  absl::StatusOr<ScoredModel> original =
      score(config, ends_, [&](int64_t index) { return dense_block(index); });
  if (!original.ok()) return original.status();
  if (!std::isfinite(original->score.loss)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model '", spec_.model(), "': its loss on the evaluation text is ", original->score.loss,
        ", expected a number; the embedding, the final norm or the head may hold NaN"));
  }
  original_ = *std::move(original);

  const absl::StatusOr<ScoredModel> nearest =
      score(config, ends_, [&](int64_t index) -> absl::StatusOr<DecoderBlock> {
        absl::StatusOr<DecoderBlock> block = dense_block(index);
        if (!block.ok()) return block.status();
        prepare_block(*block, grids_of_block(spec_, index));
        return packed_block(index, convert_block(*block));
      });
  if (!nearest.ok()) return nearest.status();

  evaluation_.set_dataset(spec_.evaluation().dataset());
  evaluation_.set_windows(inputs_.evaluation.size(0));
  evaluation_.set_sequence_length(static_cast<int32_t>(inputs_.evaluation.size(1)));
  evaluation_.set_scored_tokens(inputs_.evaluation.size(0) * (inputs_.evaluation.size(1) - 1));
  evaluation_.set_same_source(inputs_.same_source);
  evaluation_.set_original_bytes(inputs_.model.weight_bytes());
  *evaluation_.mutable_original() = to_proto(original_->score);
  *evaluation_.mutable_round_to_nearest() = to_proto(nearest->score);
  return absl::OkStatus();
}

std::vector<std::optional<QuantizedBlock>> Recipe::load_checkpoints(BlockCheckpoints::Stage stage) {
  std::vector<std::optional<QuantizedBlock>> blocks;
  for (int64_t i = 0; i < block_count_; ++i) {
    auto loaded = checkpoints_->load(stage, i);
    if (!loaded.ok()) warn(absl::StrCat(loaded.status().message(), "; training again"));
    if (!loaded.ok() || !loaded->has_value()) {
      blocks.emplace_back();
      continue;
    }
    if ((*loaded)->other_host && !std::exchange(other_host_, true)) {
      warn(
          "resuming from a machine with other threads or compute type: the artifact will not be "
          "the one an uninterrupted run gives, byte for byte");
    }
    blocks.push_back(std::move((*loaded)->block));
  }
  return blocks;
}

absl::Status Recipe::quantize_blocks() {
  start_phase(v1::PHASE_BLOCK_TRAINING);
  const bool trains = block_passes(spec_) > 0;
  std::vector<std::optional<QuantizedBlock>> earlier =
      load_checkpoints(BlockCheckpoints::Stage::kBlockTraining);
  // The streams are needed up to the last block that is still to be trained.
  int64_t streamed = trains ? block_count_ : 0;
  while (streamed > 0 && earlier[size_t(streamed - 1)].has_value()) --streamed;
  torch::Tensor full_stream, quantized_stream;  // [windows, seq, dim] float32
  RopeTable rope;
  if (streamed > 0) {
    rope = make_rope_table(inputs_.model.config(), inputs_.calibration.size(1));
    full_stream = embed(ends_, inputs_.calibration);
    quantized_stream = full_stream;
  }
  for (int64_t i = 0; i < block_count_; ++i) {
    if (stop_.stop_requested()) return absl::CancelledError("block training was stopped");
    const auto start = std::chrono::steady_clock::now();
    // 1. Target: the full-precision block on the full-precision stream.
    if (i < streamed) {
      absl::StatusOr<DecoderBlock> dense = dense_block(i);
      if (!dense.ok()) return dense.status();
      full_stream = run_block(*dense, full_stream, rope, compute_);
      meter_.add(block_units_);
    }
    // 2. The block as an earlier attempt left it, or quantized now.
    const bool trained = trains && !earlier[size_t(i)].has_value();
    if (earlier[size_t(i)].has_value()) {
      blocks_.push_back(*std::exchange(earlier[size_t(i)], std::nullopt));
      meter_.skip(block_units_ * (block_passes(spec_) - (i < streamed ? 2 : 0)));
    } else {
      absl::StatusOr<QuantizedBlock> block = quantize_block(i, quantized_stream, full_stream);
      if (!block.ok()) return block.status();
      blocks_.push_back(*std::move(block));
      const absl::Status saved = save_checkpoint(BlockCheckpoints::Stage::kBlockTraining, i);
      if (!saved.ok()) return saved;
    }
    // 3. Advance the quantized stream too.
    if (i + 1 < streamed) {
      absl::StatusOr<DecoderBlock> packed = packed_block(i, blocks_.back());
      if (!packed.ok()) return packed.status();
      quantized_stream = run_block(*packed, quantized_stream, rope, compute_);
    }
    if (i < streamed) meter_.add(block_units_);
    // The stage's rate counts all of a block's work, targets and advancing included.
    if (trained) {
      block_report_.seconds +=
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
  }
  return trains ? record_block_stage() : absl::OkStatus();
}

absl::StatusOr<QuantizedBlock> Recipe::quantize_block(int64_t index, const torch::Tensor& inputs,
                                                      const torch::Tensor& targets) {
  absl::StatusOr<DecoderBlock> block = dense_block(index);
  if (!block.ok()) return block.status();
  prepare_block(*block, grids_of_block(spec_, index));
  if (!inputs.defined()) return convert_block(*block);

  const RopeTable rope = make_rope_table(inputs_.model.config(), inputs.size(1));
  int64_t tokens = 0;
  const auto start = std::chrono::steady_clock::now();
  const auto rate = [&] {
    return static_cast<double>(tokens) /
           std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const StepSink on_step = [&](const TrainingStep& step) {
    tokens += step.tokens;
    meter_.add(kTrainingPasses * static_cast<double>(step.tokens));
    v1::Progress progress;
    progress.set_block(static_cast<int32_t>(index));
    progress.set_block_count(static_cast<int32_t>(block_count_));
    progress.set_step(step.step);
    progress.set_step_count(step.step_count);
    progress.set_loss(step.loss);
    progress.set_tokens_per_second(rate());
    report(std::move(progress));
  };
  const absl::StatusOr<TrainingReport> trained =
      block_ap(*block, inputs, targets, rope, block_ap_options(spec_, compute_), on_step, stop_);
  if (!trained.ok()) return trained.status();
  block_report_.losses.insert(block_report_.losses.end(), trained->losses.begin(),
                              trained->losses.end());
  block_report_.tokens += trained->tokens;

  v1::EngineEvent event;
  v1::BlockFinished& finished = *event.mutable_block_finished();
  finished.set_block(static_cast<int32_t>(index));
  finished.set_block_count(static_cast<int32_t>(block_count_));
  finished.set_initial_loss(trained->initial_loss());
  finished.set_final_loss(trained->final_loss());
  finished.set_seconds(trained->seconds);
  finished.set_tokens_per_second(trained->tokens_per_second());
  sink_(event);
  return convert_block(*block);
}

absl::Status Recipe::train_scales() {
  if (end_to_end_passes(spec_) == 0) return absl::OkStatus();
  start_phase(v1::PHASE_END_TO_END_TRAINING);
  // Scored as part of the artifact: see write_and_evaluate.
  v1::StageScore& stage = *evaluation_.add_stages();
  stage.set_stage("e2e_qp");
  std::vector<std::optional<QuantizedBlock>> earlier =
      load_checkpoints(BlockCheckpoints::Stage::kEndToEnd);
  if (std::all_of(earlier.begin(), earlier.end(), [](const auto& b) { return b.has_value(); })) {
    for (int64_t i = 0; i < block_count_; ++i) blocks_[size_t(i)] = *std::move(earlier[size_t(i)]);
    meter_.skip(static_cast<double>(block_count_) * block_units_ * end_to_end_passes(spec_));
    return absl::OkStatus();
  }
  earlier.clear();
  std::vector<DecoderBlock> blocks;
  for (int64_t i = 0; i < block_count_; ++i) {
    absl::StatusOr<DecoderBlock> packed = packed_block(i, blocks_[size_t(i)]);
    if (!packed.ok()) return packed.status();
    blocks.push_back(*std::move(packed));
    blocks_[size_t(i)] = {};  // the packed block has its own copy
  }
  int64_t tokens = 0;
  const auto start = std::chrono::steady_clock::now();
  const StepSink on_step = [&](const TrainingStep& step) {
    tokens += step.tokens;
    meter_.add(kTrainingPasses * static_cast<double>(block_count_ * step.tokens));
    v1::Progress progress;
    progress.set_step(step.step);
    progress.set_step_count(step.step_count);
    progress.set_loss(step.loss);
    progress.set_tokens_per_second(
        static_cast<double>(tokens) /
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    report(std::move(progress));
  };
  const absl::StatusOr<TrainingReport> trained =
      train_end_to_end(ends_, blocks, inputs_.calibration,
                       make_rope_table(inputs_.model.config(), inputs_.calibration.size(1)),
                       end_to_end_options(spec_, compute_), on_step, stop_);
  if (!trained.ok()) return trained.status();
  for (int64_t i = 0; i < block_count_; ++i) {
    blocks_[size_t(i)] = repack_block(blocks[size_t(i)]);
    blocks[size_t(i)] = nullptr;
    const absl::Status saved = save_checkpoint(BlockCheckpoints::Stage::kEndToEnd, i);
    if (!saved.ok()) return saved;
  }
  stage.set_seconds(trained->seconds);
  stage.set_tokens_per_second(trained->tokens_per_second());
  return absl::OkStatus();
}

absl::Status Recipe::write_and_evaluate() {
  // 1. Write.
  start_phase(v1::PHASE_EXPORTING);
  absl::StatusOr<ArtifactWriter> writer = write_artifact(inputs_, blocks_, folders_.out);
  if (!writer.ok()) return writer.status();
  blocks_.clear();
  // 2. Read back and score what is on disk.
  start_phase(v1::PHASE_EVALUATING);
  const absl::StatusOr<LoadedArtifact> artifact = load_artifact(folders_.out);
  if (!artifact.ok()) return artifact.status();
  const absl::StatusOr<ScoredModel> scored =
      score(artifact->reader.config(), artifact->ends,
            [&](int64_t index) { return load_artifact_block(artifact->reader, index); });
  if (!scored.ok()) return scored.status();
  *evaluation_.mutable_quantized() = to_proto(scored->score);
  evaluation_.set_measured_error(scored->score.loss - original_->score.loss);
  evaluation_.set_artifact_bytes(artifact->reader.weight_bytes());
  for (v1::StageScore& stage : *evaluation_.mutable_stages()) {
    if (!stage.has_score()) *stage.mutable_score() = evaluation_.quantized();
  }
  // 3. Manifest, and tell.
  if (const absl::Status status = inputs_.model.check_unchanged(); !status.ok()) return status;
  absl::StatusOr<std::vector<std::string>> files =
      write_manifest(*writer, inputs_, evaluation_,
                     {.host = host_description(compute_), .other_host = other_host_}, folders_.out);
  if (!files.ok()) return files.status();
  v1::EngineEvent event;
  *event.mutable_evaluation() = evaluation_;
  sink_(event);
  event.Clear();
  for (const std::string& file : *files) event.mutable_artifact_written()->add_files(file);
  sink_(event);
  return absl::OkStatus();
}

absl::Status Recipe::record_block_stage() {
  const absl::StatusOr<ScoredModel> scored =
      score(inputs_.model.config(), ends_,
            [&](int64_t index) { return packed_block(index, blocks_[size_t(index)]); });
  if (!scored.ok()) return scored.status();
  v1::StageScore& stage = *evaluation_.add_stages();
  stage.set_stage("block_ap");
  *stage.mutable_score() = to_proto(scored->score);
  stage.set_seconds(block_report_.seconds);
  stage.set_tokens_per_second(block_report_.tokens_per_second());
  return absl::OkStatus();
}

absl::Status Recipe::save_checkpoint(BlockCheckpoints::Stage stage, int64_t index) {
  absl::StatusOr<std::string> file = checkpoints_->save(stage, index, blocks_[size_t(index)]);
  if (!file.ok()) return file.status();
  v1::EngineEvent event;
  event.mutable_checkpoint_written()->set_file(*std::move(file));
  event.mutable_checkpoint_written()->set_description(absl::StrFormat(
      "%s, block %d of %d",
      stage == BlockCheckpoints::Stage::kBlockTraining ? "block training" : "end-to-end training",
      index + 1, block_count_));
  sink_(event);
  return absl::OkStatus();
}

void Recipe::start_phase(v1::Phase phase) {
  phase_ = phase;
  v1::EngineEvent event;
  event.mutable_phase_started()->set_phase(phase);
  sink_(event);
}

void Recipe::warn(const std::string& message) {
  v1::EngineEvent event;
  event.mutable_warning()->set_message(message);
  sink_(event);
}

void Recipe::report(v1::Progress progress) {
  if (!meter_.due()) return;
  progress.set_phase(phase_);
  progress.set_fraction(meter_.fraction());
  progress.set_remaining_seconds(meter_.remaining_seconds());
  v1::EngineEvent event;
  *event.mutable_progress() = std::move(progress);
  sink_(event);
}

}  // namespace qaas
