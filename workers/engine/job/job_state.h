#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>

#include <absl/status/statusor.h>
#include <torch/torch.h>

#include "qaas/v1/report.pb.h"
#include "workers/engine/eval/evaluate_model.h"
#include "workers/engine/job/block_checkpoints.h"
#include "workers/engine/job/finished_blocks.h"
#include "workers/engine/job/job_inputs.h"
#include "workers/engine/job/reporter.h"
#include "workers/engine/job/run_job.h"
#include "workers/engine/model/decoder.h"

namespace qaas {

/// What the stages of one run share: each reads what earlier ones left and adds its own. `inputs`,
/// `folders` and the reporter's sink outlive it. Not thread-safe.
struct JobState {
  JobState(const JobInputs& inputs, const RunFolders& folders, const EventSink& sink,
           std::stop_token stop, torch::ScalarType compute, BlockCheckpoints::Identity identity,
           FinishedBlocks::Keep keep);
  JobState(const JobState&) = delete;
  JobState& operator=(const JobState&) = delete;

  const JobInputs& inputs;
  const RunFolders& folders;
  std::stop_token stop;
  torch::ScalarType compute;  ///< of training's products
  Reporter reporter;
  BlockCheckpoints checkpoints;
  FinishedBlocks blocks;

  /// The spec as it runs: the submitted one, with automatic choices entered.
  v1::JobSpec spec;

  /// What is quantized: inputs.model, or its rotated copy.
  const ModelFolder* source;
  std::unique_ptr<ModelFolder> rotated;
  ModelEnds original_ends;  ///< of inputs.model
  ModelEnds source_ends;    ///< of source
  ModelEnds ends;           ///< of source, quantized as the spec says: the student's

  /// The scored original, once the baselines are there.
  std::optional<EvaluationScores> original;

  v1::RunReport report;

  const ModelConfig& config() const { return source->config(); }
  int64_t block_count() const { return config().num_hidden_layers; }
};

/// Block `index` of a full-precision folder. kUnavailable if its files changed since it was opened.
absl::StatusOr<DecoderBlock> dense_block(const ModelFolder& folder, int64_t index);

/// Block `index` of the state's source with the projections of `quantized` packed.
absl::StatusOr<DecoderBlock> packed_block(const JobState& state, int64_t index,
                                          const QuantizedBlock& quantized);

}  // namespace qaas
