#pragma once

#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <vector>

#include <absl/status/status.h>

#include "qaas/v1/job.pb.h"
#include "workers/engine/job/reporter.h"

namespace qaas {

/// What a run reads, writes and keeps in memory of what it could write.
struct RunFolders {
  std::filesystem::path model;
  std::filesystem::path calibration;  ///< dataset folder or file; empty where the job reads none
  std::filesystem::path evaluation;
  std::vector<std::filesystem::path> further_evaluations;  ///< as spec.further_evaluations
  std::vector<std::filesystem::path> tasks;  ///< as spec.tasks: folders, or single .jsonl files
  std::filesystem::path out;                 ///< created; receives the artifact
  std::filesystem::path checkpoints;         ///< created; read first, so that a run resumes
  /// Activations of block-wise stages beyond this many bytes go to nameless files in `checkpoints`.
  int64_t cache_bytes = int64_t{1} << 30;
};

/// Runs one job from spec to evaluated artifact: the method's recipe of stages. `job.spec` is
/// completed with defaults; a non-empty job.model_digest must be the digest of the model folder.
/// Where `checkpoints` holds finished blocks of the same work they are taken instead of trained.
/// kInvalidArgument: the job or its files cannot work (never retried). kCancelled: `stop` was
/// requested; everything finished so far is in `checkpoints`. kResourceExhausted: disk full.
/// kInternal: training diverged. LibTorch's exceptions pass through.
absl::Status run_job(const v1::Job& job, const RunFolders& folders, const EventSink& sink,
                     std::stop_token stop);

}  // namespace qaas
