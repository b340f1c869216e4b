#pragma once

#include <string>

#include <absl/status/status.h>

#include "workers/engine/job/job_state.h"

/// The stages that methods are made of, in the order recipes use them. Each works on the shared
/// JobState, resumes from the state's checkpoints, and returns kCancelled when the state's stop was
/// requested (everything finished is then on disk).
namespace qaas::stages {

/// Where the quantized model starts from: the rotated copy of the checkpoint, if asked for, and the
/// ends of both models.
absl::Status prepare_source(JobState& state);

/// Measures how quantization error travels, where the spec asks for it, and enters automatic
/// choices into state.spec.
absl::Status measure_signals(JobState& state);

/// Completes the signal report with the trained model.
absl::Status finish_signals(JobState& state);

/// Scores original and round-to-nearest on every evaluation text.
absl::Status score_baselines(JobState& state);

/// Initialises every block, and trains it where the spec has block training.
absl::Status quantize_blocks(JobState& state);

/// Trains the whole model. `name` is the stage's in Evaluation.stages and the report.
absl::Status train_end_to_end(JobState& state, const v1::EndToEndOptions& options,
                              const std::string& name);

/// Scores the model as it is now under the name of the stage that ended.
absl::Status score_stage(JobState& state, v1::StageScore stage);

/// Writes the artifact, reads it back, scores what is on disk and adds report and manifest.
absl::Status export_and_evaluate(JobState& state);

}  // namespace qaas::stages
