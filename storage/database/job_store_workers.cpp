// The workers' side of the job store: claim, lease, events, settle, rescue. Every statement used
// here carries the fence (job, attempt, lease_token, state running); see statements.h.
//
// A settle locks the job, so that what is requested of it cannot change any more, then decides and
// writes. When the fence no longer matches, job_attempt tells whether this very attempt has already
// ended in the same way: then an earlier try was committed although its answer got lost.
#include <utility>

#include <absl/strings/str_cat.h>

#include "storage/database/job_row.h"
#include "storage/database/job_store.h"
#include "storage/database/statements.h"

namespace qaas {
namespace {

constexpr char kCancel[] = "cancel";
constexpr char kPause[] = "pause";
constexpr char kCancelledOnRequest[] = "cancelled on request";

absl::Status lost(const Lease& lease) {
  return absl::AbortedError(absl::StrCat("lease on job '", lease.job_id, "', attempt ",
                                         lease.attempt, ", is no longer this worker's"));
}

// A job to run: its best tenant's best job, now leased under `token`.
pqxx::result claim_any(pqxx::work& work, const std::string& worker, const std::string& token,
                       std::chrono::milliseconds lease) {
  const std::string event =
      to_hex(state_changed(v1::JOB_STATE_RUNNING, absl::StrCat("claimed by ", worker)));
  for (const pqxx::row& tenant : run(work, kTenantsByShare)) {
    pqxx::result claimed =
        run(work, kClaimJob, tenant[0].c_str(), token, worker, lease.count(), event);
    if (!claimed.empty()) return claimed;
  }
  return {};
}

absl::StatusOr<ClaimedJob> read_claimed(pqxx::work& work, const std::string& job_id,
                                        const std::string& tenant, const std::string& token) {
  absl::StatusOr<v1::Job> job = job_from_row(run(work, kReadJob, job_id, tenant).front());
  if (!job.ok()) return job.status();
  ClaimedJob claimed;
  claimed.lease = {job_id, job->attempt(), token};
  claimed.tenant = tenant;
  claimed.job = std::move(job).value();
  for (const pqxx::row& row : run(work, kListCheckpoints, job_id)) {
    claimed.checkpoints.push_back(file_from_row(row));
  }
  return claimed;
}

absl::Status set_progress_row(pqxx::work& work, const Lease& lease, const v1::Progress& progress) {
  const pqxx::result rows =
      run(work, kSetProgress, lease.job_id, lease.attempt, lease.token, to_hex(progress));
  return rows.affected_rows() == 1 ? absl::OkStatus() : lost(lease);
}

absl::StatusOr<std::string> optional_json(const google::protobuf::Message* message) {
  if (message == nullptr) return std::string();
  return to_json(*message);
}

}  // namespace

// ---- claim and lease ----

absl::StatusOr<std::optional<ClaimedJob>> JobStore::claim(const std::string& worker) {
  const std::string token = random_uuid();
  bool tried = false;
  std::optional<ClaimedJob> claimed;
  const absl::Status status =
      database_.transact_again_if_in_doubt([&](pqxx::work& work) -> absl::Status {
        claimed.reset();
        pqxx::result rows;
        if (tried) rows = run(work, kFindClaim, token);
        tried = true;
        if (rows.empty()) rows = claim_any(work, worker, token, options_.lease);
        if (rows.empty()) return absl::OkStatus();
        absl::StatusOr<ClaimedJob> job =
            read_claimed(work, rows.front()[0].c_str(), rows.front()[1].c_str(), token);
        if (!job.ok()) return job.status();
        claimed = std::move(job).value();
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  if (claimed.has_value()) announce(claimed->lease.job_id, v1::JOB_STATE_RUNNING);
  return claimed;
}

absl::StatusOr<LeaseState> JobStore::renew(const Lease& lease) {
  LeaseState state = LeaseState::kLost;
  const absl::Status status = database_.transact_again_if_in_doubt([&](pqxx::work& work) {
    const pqxx::result rows =
        run(work, kRenewLease, lease.job_id, lease.attempt, lease.token, options_.lease.count());
    if (rows.empty()) {
      state = LeaseState::kLost;
    } else {
      state = rows.front()[0].as<std::string>() == kCancel ? LeaseState::kCancelRequested
                                                           : LeaseState::kHeld;
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return state;
}

// ---- events, progress, checkpoints ----

absl::Status JobStore::append(const Lease& lease, const std::vector<v1::JobEvent>& events,
                              const std::function<absl::Status(pqxx::work&)>& more) {
  std::vector<std::string> payloads;
  for (v1::JobEvent event : events) {
    event.clear_number();
    event.clear_time();
    event.clear_attempt();
    payloads.push_back(to_hex(event));
  }
  std::optional<int64_t> last_event;  // as numbered by a try whose commit may be in doubt
  const absl::Status status = database_.transact_again_if_in_doubt([&](pqxx::work& work)
                                                                       -> absl::Status {
    if (last_event.has_value() && !payloads.empty()) {
      run(work, kLockJobOfLease, lease.job_id);
      const bool written =
          !run(work, kFindEvent, lease.job_id, lease.attempt, *last_event, payloads.back()).empty();
      if (written) return absl::OkStatus();
    }
    const pqxx::result rows =
        run(work, kAppendEvents, lease.job_id, lease.attempt, lease.token, to_array(payloads));
    if (rows.empty()) return lost(lease);
    last_event = rows.front()[0].as<int64_t>();
    return more(work);
  });
  if (status.ok()) announce(lease.job_id, v1::JOB_STATE_RUNNING);
  return status;
}

absl::Status JobStore::append_events(const Lease& lease, const std::vector<v1::JobEvent>& events) {
  const v1::Progress* progress = nullptr;
  for (const v1::JobEvent& event : events) {
    if (event.has_progress()) progress = &event.progress();
  }
  return append(lease, events, [&](pqxx::work& work) {
    return progress == nullptr ? absl::OkStatus() : set_progress_row(work, lease, *progress);
  });
}

absl::Status JobStore::set_progress(const Lease& lease, const v1::Progress& progress) {
  return database_.transact_again_if_in_doubt(
      [&](pqxx::work& work) { return set_progress_row(work, lease, progress); });
}

absl::Status JobStore::add_checkpoint(const Lease& lease, const StoredFile& file,
                                      const v1::CheckpointWritten& event) {
  v1::JobEvent written;
  *written.mutable_checkpoint_written() = event;
  return append(lease, {written}, [&](pqxx::work& work) {
    const pqxx::result rows = run(work, kAddCheckpoint, lease.job_id, lease.attempt, lease.token,
                                  file.name, file.key, file.size_bytes, file.sha256);
    return rows.affected_rows() == 1 ? absl::OkStatus() : lost(lease);
  });
}

// ---- settle ----

absl::Status JobStore::settle(pqxx::work& work, const Lease& lease, const Settlement& settlement) {
  v1::JobEvent event = state_changed(settlement.state, settlement.reason);
  if (settlement.failure.has_value()) {
    *event.mutable_state_changed()->mutable_failure() = *settlement.failure;
  }
  const absl::StatusOr<std::string> failure =
      optional_json(settlement.failure.has_value() ? &*settlement.failure : nullptr);
  if (!failure.ok()) return failure.status();
  const absl::StatusOr<std::string> evaluation =
      optional_json(settlement.evaluation.has_value() ? &*settlement.evaluation : nullptr);
  if (!evaluation.ok()) return evaluation.status();
  const pqxx::result rows =
      run(work, kSettle, lease.job_id, lease.attempt, lease.token, state_name(settlement.state),
          *failure, *evaluation, settlement.backoff.count(), to_hex(event));
  return rows.affected_rows() == 1 ? absl::OkStatus() : lost(lease);
}

// Ends the attempt as `rule` says and sets `state` to what the job is then in. `failure` is what a
// committed earlier try would have written.
absl::Status JobStore::settle_if_held(const Lease& lease, const std::optional<v1::Failure>& failure,
                                      const SettlementRule& rule, v1::JobState& state) {
  const absl::StatusOr<std::string> failure_json =
      optional_json(failure.has_value() ? &*failure : nullptr);
  if (!failure_json.ok()) return failure_json.status();
  const absl::Status status =
      database_.transact_again_if_in_doubt([&](pqxx::work& work) -> absl::Status {
        const pqxx::result held = run(work, kLockLease, lease.job_id, lease.attempt, lease.token);
        if (held.empty()) {
          const pqxx::result ended =
              run(work, kReadOutcome, lease.job_id, lease.attempt, lease.token, *failure_json);
          if (ended.empty()) return lost(lease);
          state = state_from_name(ended.front()[0].c_str());
          return absl::OkStatus();
        }
        const absl::StatusOr<Settlement> settlement = rule(work, held.front()[0].c_str());
        if (!settlement.ok()) return settlement.status();
        state = settlement->state;
        return settle(work, lease, *settlement);
      });
  if (status.ok()) announce(lease.job_id, state);
  return status;
}

absl::Status JobStore::settle_succeeded(const Lease& lease, const std::vector<StoredFile>& files,
                                        const v1::Evaluation& evaluation) {
  const auto rule = [&](pqxx::work& work, const std::string&) -> absl::StatusOr<Settlement> {
    for (const StoredFile& file : files) {
      const pqxx::result rows = run(work, kAddArtifact, lease.job_id, lease.attempt, lease.token,
                                    file.name, file.key, file.size_bytes, file.sha256);
      if (rows.affected_rows() != 1) return lost(lease);
    }
    return Settlement{
        .state = v1::JOB_STATE_SUCCEEDED, .reason = "published", .evaluation = evaluation};
  };
  v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
  const absl::Status status = settle_if_held(lease, std::nullopt, rule, state);
  if (status.ok() && state != v1::JOB_STATE_SUCCEEDED) return lost(lease);
  return status;
}

absl::StatusOr<JobStore::Settlement> JobStore::settlement_of_failure(
    pqxx::work& work, const std::string& job_id, const std::string& requested,
    const v1::Failure& failure) const {
  if (requested == kCancel) {
    return Settlement{
        .state = v1::JOB_STATE_CANCELLED, .reason = kCancelledOnRequest, .failure = failure};
  }
  std::vector<v1::Failure> earlier;
  for (const pqxx::row& row : run(work, kEarlierFailures, job_id)) {
    const absl::Status parsed = from_json(row[0].c_str(), "failure", earlier.emplace_back());
    if (!parsed.ok()) return parsed;
  }
  RetryDecision decision = decide_retry(failure, earlier,
                                        {.max_failures = options_.max_failures,
                                         .first_backoff = options_.first_backoff,
                                         .max_backoff = options_.max_backoff});
  v1::JobState state = v1::JOB_STATE_FAILED;
  if (decision.retry) {
    state = requested == kPause ? v1::JOB_STATE_PAUSED : v1::JOB_STATE_QUEUED;
  }
  return Settlement{.state = state,
                    .reason = std::move(decision.reason),
                    .failure = failure,
                    .backoff = decision.backoff};
}

absl::StatusOr<v1::JobState> JobStore::settle_failed(const Lease& lease,
                                                     const v1::Failure& failure) {
  const v1::Failure stored = storable(failure);
  const auto rule = [&](pqxx::work& work, const std::string& requested) {
    return settlement_of_failure(work, lease.job_id, requested, stored);
  };
  v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
  const absl::Status status = settle_if_held(lease, stored, rule, state);
  if (!status.ok()) return status;
  return state;
}

absl::Status JobStore::settle_cancelled(const Lease& lease) {
  const auto rule = [&](pqxx::work&, const std::string& requested) -> absl::StatusOr<Settlement> {
    if (requested != kCancel) {
      return absl::FailedPreconditionError(
          absl::StrCat("job '", lease.job_id, "': nobody has asked for it to be cancelled"));
    }
    return Settlement{.state = v1::JOB_STATE_CANCELLED, .reason = kCancelledOnRequest};
  };
  v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
  const absl::Status status = settle_if_held(lease, std::nullopt, rule, state);
  if (status.ok() && state != v1::JOB_STATE_CANCELLED) return lost(lease);
  return status;
}

absl::Status JobStore::release(const Lease& lease) {
  const auto rule = [](pqxx::work&, const std::string& requested) -> absl::StatusOr<Settlement> {
    if (requested == kCancel) {
      return Settlement{.state = v1::JOB_STATE_CANCELLED, .reason = kCancelledOnRequest};
    }
    return Settlement{.state = requested == kPause ? v1::JOB_STATE_PAUSED : v1::JOB_STATE_QUEUED,
                      .reason = "given back by its worker"};
  };
  v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
  const absl::Status status = settle_if_held(lease, std::nullopt, rule, state);
  if (status.ok() && state == v1::JOB_STATE_SUCCEEDED) return lost(lease);
  return status;
}

// ---- rescue ----

// `state` stays empty when there is nothing to rescue any more.
absl::Status JobStore::rescue(const std::string& job_id, std::optional<v1::JobState>& state) {
  const absl::Status status = database_.transact([&](pqxx::work& work) -> absl::Status {
    state.reset();
    const pqxx::result job = run(work, kLockRunningJob, job_id);
    if (job.empty()) return absl::OkStatus();
    const pqxx::result expired = run(work, kLockExpiredLease, job_id);
    if (expired.empty()) return absl::OkStatus();

    v1::Failure failure;
    failure.set_failure_class(v1::FAILURE_CLASS_INFRASTRUCTURE);
    failure.set_code("UNAVAILABLE");
    failure.set_message(absl::StrCat("lease expired: worker '", expired.front()[0].c_str(),
                                     "' was not heard of in time"));
    const pqxx::row row = job.front();
    const Lease lease{job_id, row["attempt"].as<int>(), row["lease_token"].c_str()};
    const absl::StatusOr<Settlement> settlement =
        settlement_of_failure(work, job_id, row["requested"].c_str(), failure);
    if (!settlement.ok()) return settlement.status();
    state = settlement->state;
    return settle(work, lease, *settlement);
  });
  // In doubt: if it was not committed, the next rescue finds the lease still expired.
  if (status.code() == absl::StatusCode::kUnknown) return absl::OkStatus();
  return status;
}

absl::StatusOr<std::vector<std::string>> JobStore::rescue_expired() {
  std::vector<std::string> candidates;
  const absl::Status listed = database_.transact([&](pqxx::work& work) {
    candidates.clear();
    for (const pqxx::row& row : run(work, kExpiredLeases)) candidates.emplace_back(row[0].c_str());
    return absl::OkStatus();
  });
  if (!listed.ok()) return listed;

  std::vector<std::string> rescued;
  for (const std::string& job_id : candidates) {
    std::optional<v1::JobState> state;
    const absl::Status status = rescue(job_id, state);
    if (!status.ok()) return status;
    if (!state.has_value()) continue;
    announce(job_id, *state);
    rescued.push_back(job_id);
  }
  return rescued;
}

}  // namespace qaas
