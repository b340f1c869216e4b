#pragma once

#include <absl/status/statusor.h>

#include "qaas/v1/evaluation.pb.h"
#include "workers/engine/job/job_state.h"

namespace qaas {

/// How much of the evaluation a model is scored on.
enum class ScoreExtent { kMainText, kTexts, kTextsAndTasks };

/// Scores a model, against state.original once that is there, reporting progress.
absl::StatusOr<EvaluationScores> score(JobState& state, const ModelConfig& config,
                                       const ModelEnds& ends, const BlockSource& source,
                                       ScoreExtent extent);

v1::ModelScore to_proto(const LanguageModelScore& score);
v1::TaskAccuracy to_proto(const TaskScore& score);

}  // namespace qaas
