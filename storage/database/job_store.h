#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "qaas/v1/event.pb.h"
#include "qaas/v1/job.pb.h"
#include "storage/database/database.h"
#include "storage/database/notifier.h"
#include "storage/database/retry_policy.h"

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
  std::string name;  ///< "model.safetensors"
  std::string key;   ///< key in the artifact store
  int64_t size_bytes = 0;
  std::string sha256;  ///< hex
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
  /// At most one NOTIFY transaction in this time.
  std::chrono::milliseconds notify_interval{50};
};

/// What a worker is told when it renews.
enum class LeaseState { kHeld, kCancelRequested, kLost };

/// Jobs, their events, checkpoints and artifacts. Thread-safe. All methods report database trouble
/// as Database::transact does; a method that takes a Lease returns kAborted, and has changed
/// nothing, when the lease is no longer this worker's. In-doubt commits are resolved here: settling
/// twice in the same way is settling once, so a caller may repeat any settle after kUnavailable.
class JobStore {
 public:
  JobStore(Database& database, JobStoreOptions options);
  ~JobStore();

  // ---- callers' side (tenant-scoped) ----

  /// Inserts `job` (spec, forecast, model_digest set; name empty) as QUEUED with event 1
  /// "submitted". With a request_id already used by this tenant: the existing job if `fingerprint`
  /// (a digest of the request body as sent) is equal, else kAlreadyExists.
  absl::StatusOr<v1::Job> submit(const std::string& tenant, const v1::Job& job,
                                 const std::string& fingerprint);

  /// The job this tenant submitted under `request_id` before, or nullopt if it did not;
  /// kAlreadyExists if it came with another fingerprint.
  absl::StatusOr<std::optional<v1::Job>> find_submitted(const std::string& tenant,
                                                        const std::string& request_id,
                                                        const std::string& fingerprint);

  /// kNotFound for a job that does not exist or belongs to another tenant.
  absl::StatusOr<v1::Job> get(const std::string& tenant, const std::string& job_id);

  struct Page {
    std::vector<v1::Job> jobs;
    std::string next;  ///< position after the last job; empty at the end
  };
  /// Newest first by (create time, id), from after `position` (empty: the start). kInvalidArgument
  /// for a position that no page has returned.
  absl::StatusOr<Page> list(const std::string& tenant, int page_size, const std::string& position);

  /// QUEUED or PAUSED becomes CANCELLED; RUNNING gets cancel_requested; CANCELLED stays, so asking
  /// twice is fine; kFailedPrecondition when the job has succeeded or failed.
  absl::StatusOr<v1::Job> request_cancel(const std::string& tenant, const std::string& job_id);

  /// Events with number > after, in order, at most `limit`.
  absl::StatusOr<std::vector<v1::JobEvent>> events_after(const std::string& job_id, int64_t after,
                                                         int limit);

  /// Files of a succeeded job in name order; empty while it has none. kNotFound as in get.
  absl::StatusOr<std::vector<StoredFile>> artifacts(const std::string& tenant,
                                                    const std::string& job_id);

  // ---- workers' side (fenced) ----

  /// Claims the next job for `worker` (fair share between tenants, then priority, then age), or
  /// nullopt when none is due. Bumps attempt, draws a token, writes the event "claimed".
  absl::StatusOr<std::optional<ClaimedJob>> claim(const std::string& worker);

  /// Extends the lease; an expired lease nobody rescued is renewed all the same. A lost lease is
  /// kLost, not an error.
  absl::StatusOr<LeaseState> renew(const Lease& lease);

  /// Appends events in order; number, time and attempt are set here. The last Progress among them
  /// becomes the job's progress.
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

  /// The worker stopped the engine because cancel was requested; kFailedPrecondition if it was not.
  absl::Status settle_cancelled(const Lease& lease);

  /// Gives the job back without touching its retry budget (worker shutting down): QUEUED, or
  /// CANCELLED if that was requested.
  absl::Status release(const Lease& lease);

  /// Requeues (or settles, when cancel was requested or failures are exhausted) every running job
  /// whose lease has expired. Idempotent; any process may call it, but only after a full lease
  /// length of uninterrupted database contact. Returns the ids of the jobs rescued.
  absl::StatusOr<std::vector<std::string>> rescue_expired();

  // ---- figures ----

  struct Statistics {
    std::map<std::string, int64_t> jobs_by_state;  ///< "queued" -> n, every state present
    /// How long the oldest queued job has been ready to run; 0 when there is none.
    double oldest_queued_seconds = 0;
  };
  /// Counts every job: about 0.1 s at a million jobs, so call it per interval, not per scrape.
  absl::StatusOr<Statistics> statistics();

  /// Which of `prefixes` ("jobs/J/attempts/A/" or a folder in one, as found in the artifact store)
  /// may be deleted, in name order: no row names a file there, and the attempt is below the job's
  /// current one or the job has settled. Prefixes of another form, or of jobs this database does
  /// not know, are never returned.
  absl::StatusOr<std::vector<std::string>> collectable(const std::vector<std::string>& prefixes);

 private:
  /// How an attempt ends.
  struct Settlement {
    v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
    std::string reason;
    std::optional<v1::Failure> failure;
    std::optional<v1::Evaluation> evaluation;
    std::chrono::milliseconds backoff{0};
  };
  /// Given what is requested of the job ("none", "cancel", "pause"), how the attempt ends.
  using SettlementRule =
      std::function<absl::StatusOr<Settlement>(pqxx::work& work, const std::string& requested)>;

  static absl::Status settle(pqxx::work& work, const Lease& lease, const Settlement& settlement);
  absl::Status append(const Lease& lease, const std::vector<v1::JobEvent>& events,
                      const std::function<absl::Status(pqxx::work&)>& more);
  absl::Status settle_if_held(const Lease& lease, const std::optional<v1::Failure>& failure,
                              const SettlementRule& rule, v1::JobState& state);
  absl::StatusOr<Settlement> settlement_of_failure(pqxx::work& work, const std::string& job_id,
                                                   const std::string& requested,
                                                   const v1::Failure& failure) const;
  absl::Status rescue(const std::string& job_id, std::optional<v1::JobState>& state);
  void announce(const std::string& job_id, v1::JobState state);

  Database& database_;
  const JobStoreOptions options_;
  Notifier notifier_;
};

/// Channel for "there is a job to claim", payload = job id. Sent after commit, best effort.
inline constexpr char kQueueChannel[] = "qaas_queue";
/// Channel for "this job has new events", payload = job id. Sent after commit, best effort.
inline constexpr char kEventChannel[] = "qaas_events";

}  // namespace qaas
