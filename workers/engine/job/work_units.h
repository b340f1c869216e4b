#pragma once

#include "qaas/v1/job_spec.pb.h"
#include "workers/engine/job/job_inputs.h"

/// How much work the parts of a run are, for WorkMeter. The unit is one token through one block,
/// forward.
namespace qaas {

/// A training step costs about a forward pass (1) and a backward pass (2).
inline constexpr double kTrainingPasses = 3;

/// Scoring one model: every block, and the head, which costs about as much as a block.
double score_units(const JobInputs& inputs);

/// One forward pass of all calibration windows through one block; 0 without calibration.
double block_units(const JobInputs& inputs);

/// Such passes for each block while blocks are quantized in turn: both residual streams advance
/// where initialisation or training reads them, else 0.
double stream_passes(const v1::JobSpec& spec);

/// Such passes for each block of block training; 0 where it does not train.
double block_training_passes(const v1::JobSpec& spec);

/// Such passes for each block of an end-to-end stage.
double end_to_end_passes(const v1::EndToEndOptions& options);

/// The whole run: training, and scoring the original, the round-to-nearest model, the model after
/// block-wise training and the artifact.
double total_units(const JobInputs& inputs);

}  // namespace qaas
