#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "proto/spec/job_spec.h"
#include "qaas/v1/job.pb.h"
#include "workers/engine/job/run_job.h"

namespace qaas {

/// What a run may use. 0 means the default.
struct RunLimits {
  /// Anonymous memory. Default: what the machine, or the control group this process is in, has
  /// left.
  int64_t memory_bytes = 0;
  /// Of it, for activation caches. Default: a quarter.
  int64_t cache_bytes = 0;
};
/// The limits with defaults filled in from the machine.
RunLimits with_defaults(RunLimits limits);

/// Memory, disk and time of a job before it runs.
struct Plan {
  v1::Job job;  ///< with the spec's defaults, and the most windows its datasets can hold
  Footprint footprint;
  RunLimits limits;             ///< defaults filled in
  int64_t free_disk_bytes = 0;  ///< where the artifact and the checkpoints go
  int64_t window_tokens = 0;    ///< calibration tokens per epoch, at most
  int64_t scored_tokens = 0;    ///< evaluation tokens
  /// Measured by estimate_time: seconds of the whole run, and tokens a second through one block.
  struct Time {
    double seconds = 0;
    double scoring_rate = 0;
    double training_rate = 0;
  };
  std::optional<Time> time;

  std::string to_text() const;  ///< a table, ending in a newline
  std::string to_json() const;  ///< one object, ending in a newline
};

/// Memory and disk, from the formulas of proto/spec; opens the model's headers only. Fails as
/// run_job does where spec or model are wrong. `folders.out` need not exist.
absl::StatusOr<Plan> plan_job(const v1::Job& job, const RunFolders& folders,
                              const RunLimits& limits);

/// Fills in plan.time: times the model's first block, one window forward in float32 and one
/// Block-AP step of a batch, and scales that up by the work of each stage. End-to-end steps are
/// taken to cost what Block-AP steps do, per block. Takes a few seconds for a large model.
absl::Status estimate_time(Plan& plan, const RunFolders& folders);

/// kResourceExhausted, with what is needed and what there is, where memory or disk cannot hold the
/// run.
absl::Status check_fits(const Plan& plan);

}  // namespace qaas
