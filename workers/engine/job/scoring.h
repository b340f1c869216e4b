#pragma once

#include <absl/status/statusor.h>

#include "qaas/v1/evaluation.pb.h"
#include "workers/engine/job/job_state.h"

namespace qaas {

/// Scores a model on the evaluation text, against state.original once that is there, reporting
/// progress.
absl::StatusOr<ScoredModel> score(JobState& state, const ModelConfig& config, const ModelEnds& ends,
                                  const BlockSource& source);

v1::ModelScore to_proto(const LanguageModelScore& score);

}  // namespace qaas
