#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "qaas/v1/evaluation.pb.h"
#include "workers/engine/eval/language_model_score.h"
#include "workers/engine/job/block_checkpoints.h"
#include "workers/engine/job/job_inputs.h"
#include "workers/engine/job/run_job.h"
#include "workers/engine/job/work_meter.h"
#include "workers/engine/train/training.h"

namespace qaas {

/// A method as a sequence of stages over shared state: baseline → blocks (Block-AP, or plain
/// rounding) → end-to-end → export → evaluation of what was written. A new method composes stages
/// here; it does not copy them.
class Recipe {
 public:
  /// All arguments must outlive the recipe.
  Recipe(const JobInputs& inputs, const RunFolders& folders, const EventSink& sink,
         std::stop_token stop);

  absl::Status run();

 private:
  // Blocks of the checkpoint, or over it what `quantized` holds. Each looks first whether the
  // mapped files are still the ones that were opened.
  absl::StatusOr<DecoderBlock> dense_block(int64_t index) const;
  absl::StatusOr<DecoderBlock> packed_block(int64_t index, const QuantizedBlock& quantized) const;

  absl::Status score_baselines();
  absl::Status quantize_blocks();
  absl::Status train_scales();
  absl::Status write_and_evaluate();

  absl::StatusOr<QuantizedBlock> quantize_block(int64_t index, const torch::Tensor& inputs,
                                                const torch::Tensor& targets);
  /// What an earlier attempt left of a stage, by block. Damaged files and other hosts are warned
  /// of.
  std::vector<std::optional<QuantizedBlock>> load_checkpoints(BlockCheckpoints::Stage stage);
  /// Scores a model on the evaluation text, against original_ once that is there.
  absl::StatusOr<ScoredModel> score(const ModelConfig& config, const ModelEnds& ends,
                                    const BlockSource& source);
  absl::Status record_block_stage();

  // What the outside is told.
  void start_phase(v1::Phase phase);
  void warn(const std::string& message);
  absl::Status save_checkpoint(BlockCheckpoints::Stage stage, int64_t index);
  /// Reports `progress` completed by phase and meter, at most once a second.
  void report(v1::Progress progress);

  const JobInputs& inputs_;
  const v1::JobSpec& spec_;
  const RunFolders& folders_;
  const EventSink& sink_;
  std::stop_token stop_;

  ModelEnds ends_;
  torch::ScalarType compute_;
  int64_t block_count_;
  double score_units_;  ///< work of scoring one model
  double block_units_;  ///< work of one forward pass of all calibration windows through a block
  WorkMeter meter_;
  v1::Phase phase_ = v1::PHASE_LOADING;
  std::optional<BlockCheckpoints> checkpoints_;
  bool other_host_ = false;  ///< a checkpoint of another host was taken

  std::optional<ScoredModel> original_;
  std::vector<QuantizedBlock> blocks_;  ///< finished so far
  TrainingReport block_report_;         ///< of all blocks together
  v1::Evaluation evaluation_;
};

}  // namespace qaas
