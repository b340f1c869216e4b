#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "qaas/v1/event.pb.h"
#include "qaas/v1/job.pb.h"
#include "storage/database/database.h"

namespace qaas {

/// The tenant every row belongs to until tenants are managed.
inline constexpr char kDefaultTenant[] = "default";

/// What a worker holds while it works on a job. Every write of a worker carries it and changes
/// nothing unless (job, attempt, token) still match and the job is running: the fence.
struct Lease {
  std::string job_id;  ///< UUID
  int attempt = 0;
  std::string token;  ///< random UUID drawn at claim
};

/// A finished file of an attempt, as the artifact store holds it.
struct StoredFile {
  std::string name;        ///< "model.safetensors"
  std::string key;         ///< key in the artifact store
  int64_t size_bytes = 0;
  std::string sha256;      ///< hex
};

/// A job handed to a worker.
struct ClaimedJob {
  Lease lease;
  std::string tenant;
  v1::Job job;
  /// Files of earlier attempts to resume from, in name order; empty on a first attempt.
  std::vector<StoredFile> checkpoints;
};

struct JobStoreOptions {
  /// How long a claim or a renewal lasts.
  std::chrono::milliseconds lease{15000};
  /// Failed attempts (rescues included) before a job fails for good.
  int max_failures = 3;
  /// Wait before attempt n+1 is first_backoff * 2^(failures-1), at most max_backoff.
  std::chrono::milliseconds first_backoff{5000};
  std::chrono::milliseconds max_backoff{600000};
};

/// What a worker is told when it renews.
enum class LeaseState { kHeld, kCancelRequested, kLost };

/// Every statement about jobs, their events, checkpoints and artifacts. Thread-safe. All methods
/// report database trouble as Database::transact does; a method that takes a Lease returns kAborted
/// when the lease is no longer this worker's.
class JobStore {
 public:
  JobStore(Database& database, JobStoreOptions options);

  // ---- callers' side (tenant-scoped) ----

  /// Inserts `job` (spec, forecast, model_digest set; name empty) as QUEUED with event 1
  /// "submitted". With a request_id already used by this tenant: the existing job if `fingerprint`
  /// (a digest of the request body as sent) is equal, else kAlreadyExists.
  absl::StatusOr<v1::Job> submit(const std::string& tenant, const v1::Job& job,
                                 const std::string& fingerprint);

  /// kNotFound for a job that does not exist or belongs to another tenant.
  absl::StatusOr<v1::Job> get(const std::string& tenant, const std::string& job_id);

  struct Page {
    std::vector<v1::Job> jobs;
    std::string next;  ///< position after the last job; empty at the end
  };
  /// Newest first by (create time, id), from after `position` (empty: the start).
  absl::StatusOr<Page> list(const std::string& tenant, int page_size, const std::string& position);

  /// QUEUED or PAUSED becomes CANCELLED; RUNNING gets cancel_requested; kFailedPrecondition when
  /// the job has settled. Asking twice is fine.
  absl::StatusOr<v1::Job> request_cancel(const std::string& tenant, const std::string& job_id);

  /// Events with number > after, in order, at most `limit`.
  absl::StatusOr<std::vector<v1::JobEvent>> events_after(const std::string& job_id, int64_t after,
                                                         int limit);

  /// Files of a succeeded job in name order; empty while it has none.
  absl::StatusOr<std::vector<StoredFile>> artifacts(const std::string& tenant,
                                                    const std::string& job_id);

  // ---- workers' side (fenced) ----

  /// Claims the next job for `worker` (fair share between tenants, then priority, then age), or
  /// nullopt when none is due. Bumps attempt, draws a token, writes the event "claimed".
  absl::StatusOr<std::optional<ClaimedJob>> claim(const std::string& worker);

  /// Extends the lease; an expired lease nobody claimed is renewed all the same.
  absl::StatusOr<LeaseState> renew(const Lease& lease);

  /// Appends events (number and time are set here) and, if given, the job's progress.
  absl::Status append_events(const Lease& lease, const std::vector<v1::JobEvent>& events);
  /// Coalesced progress: overwrites the job's progress row; no event row.
  absl::Status set_progress(const Lease& lease, const v1::Progress& progress);

  /// Makes a checkpoint file visible to later attempts, with its event. Same name replaces.
  absl::Status add_checkpoint(const Lease& lease, const StoredFile& file,
                              const v1::CheckpointWritten& event);

  /// Publishes: one transaction names the files, stores the evaluation and settles SUCCEEDED.
  absl::Status settle_succeeded(const Lease& lease, const std::vector<StoredFile>& files,
                                const v1::Evaluation& evaluation);

  /// Settles a failed attempt by its failure class: requeued after backoff, or FAILED for good
  /// (caller's fault; failures exhausted; INTERNAL twice; same position twice). CANCELLED instead
  /// if that was requested. Returns the state the job is in now.
  absl::StatusOr<v1::JobState> settle_failed(const Lease& lease, const v1::Failure& failure);

  /// The worker stopped the engine because cancel was requested.
  absl::Status settle_cancelled(const Lease& lease);

  /// Gives the job back without touching its retry budget (worker shutting down).
  absl::Status release(const Lease& lease);

  /// Requeues (or settles, when cancel was requested or failures are exhausted) every running job
  /// whose lease has expired. Idempotent; any process may call it, but only after a full lease
  /// length of uninterrupted database contact. Returns the ids of the jobs rescued.
  absl::StatusOr<std::vector<std::string>> rescue_expired();

  // ---- figures ----

  struct Statistics {
    std::map<std::string, int64_t> jobs_by_state;  ///< "queued" -> n, every state present
    double oldest_queued_seconds = 0;              ///< 0 when nothing is queued
  };
  absl::StatusOr<Statistics> statistics();

  /// Attempt-scoped prefixes ("jobs/J/attempts/A/") in the artifact store that no row names and
  /// whose attempt is over, for garbage collection, given the prefixes found there.
  absl::StatusOr<std::vector<std::string>> collectable(const std::vector<std::string>& prefixes);

 private:
  Database& database_;
  JobStoreOptions options_;
};

/// Channel that submit, claim and settle notify on, payload = job id. Sent after commit, best effort.
inline constexpr char kQueueChannel[] = "qaas_queue";
/// Channel for "this job has new events", payload = job id.
inline constexpr char kEventChannel[] = "qaas_events";

}  // namespace qaas
