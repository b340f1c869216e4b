#pragma once

#include <map>
#include <stop_token>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <torch/torch.h>

#include "qaas/v1/job.pb.h"
#include "storage/checkpoint/model_folder.h"
#include "workers/engine/eval/evaluate_model.h"
#include "workers/engine/job/run_job.h"

namespace qaas {

/// Everything a recipe needs, read and checked.
struct JobInputs {
  v1::Job job;  ///< spec with defaults filled in
  ModelFolder model;
  std::string model_digest;
  std::map<std::string, std::string> dataset_digests;  ///< by dataset name
  torch::Tensor calibration;    ///< [windows, seq] int64; undefined where nothing reads it
  EvaluationInputs evaluation;  ///< the main text, then further ones in the spec's order; tasks
  /// For each text: whether calibration comes from the same dataset or declared source.
  std::vector<bool> same_source;
};

/// Opens the model, checks the spec against it, fills in defaults, verifies the digest the job is
/// pinned to, and tokenizes the datasets. kInvalidArgument lists every field that is wrong;
/// kFailedPrecondition if the model is not the one the job was submitted for.
absl::StatusOr<JobInputs> load_inputs(const v1::Job& job, const RunFolders& folders,
                                      std::stop_token stop);

}  // namespace qaas
