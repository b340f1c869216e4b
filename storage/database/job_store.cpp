// The callers' side of the job store, and its figures. The workers' side is job_store_workers.cpp.
#include "storage/database/job_store.h"

#include <utility>

#include <absl/strings/ascii.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <absl/strings/strip.h>

#include "storage/database/job_row.h"
#include "storage/database/statements.h"

namespace qaas {
namespace {

absl::Status no_such_job(const std::string& job_id) {
  return absl::NotFoundError(absl::StrCat("job 'jobs/", job_id, "' does not exist"));
}

absl::StatusOr<v1::Job> read_job(pqxx::work& work, const std::string& tenant,
                                 const std::string& job_id) {
  const pqxx::result rows = run(work, kReadJob, job_id, tenant);
  if (rows.empty()) return no_such_job(job_id);
  return job_from_row(rows.front());
}

absl::StatusOr<v1::Job> job_for_request(pqxx::work& work, const std::string& tenant,
                                        const std::string& request_id,
                                        const std::string& fingerprint) {
  const pqxx::result rows = run(work, kReadJobByRequest, tenant, request_id);
  if (rows.empty()) {
    return absl::UnavailableError(
        absl::StrCat("request_id '", request_id, "' was in use a moment ago: try again"));
  }
  if (rows.front()["fingerprint"].c_str() != fingerprint) {
    return absl::AlreadyExistsError(
        absl::StrCat("request_id '", request_id, "' was used before with another request body"));
  }
  return job_from_row(rows.front());
}

// A position is "MICROSECONDS.UUID" of the last job seen; both parts are empty at the start.
struct Position {
  std::string create_us;
  std::string job_id;
};

absl::StatusOr<Position> parse_position(const std::string& text) {
  if (text.empty()) return Position{};
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('.', 1));
  int64_t create_us = 0;
  if (!absl::SimpleAtoi(parts.first, &create_us) || create_us < 0 || !is_uuid(parts.second)) {
    return absl::InvalidArgumentError("position in the job list: not one that a page has returned");
  }
  return Position{absl::StrCat(create_us), parts.second};
}

std::string position_after(const pqxx::row& row) {
  return absl::StrCat(row["create_us"].c_str(), ".", row["id"].c_str());
}

// "jobs/J/attempts/A/" or "jobs/J/attempts/A/FOLDER/".
bool parse_attempt_prefix(const std::string& prefix, std::string& job_id, int& attempt) {
  const std::vector<std::string> parts = absl::StrSplit(prefix, '/');
  const bool names_an_attempt = parts.size() == 5 || (parts.size() == 6 && !parts[4].empty());
  if (!names_an_attempt || parts[0] != "jobs" || parts[2] != "attempts" || !parts.back().empty()) {
    return false;
  }
  job_id = parts[1];
  return is_uuid(job_id) && absl::SimpleAtoi(parts[3], &attempt) && attempt > 0;
}

}  // namespace

JobStore::JobStore(Database& database, JobStoreOptions options)
    : database_(database), options_(options), notifier_(database, options.notify_interval) {}
JobStore::~JobStore() = default;

void JobStore::announce(const std::string& job_id, v1::JobState state) {
  notifier_.notify(kEventChannel, job_id);
  if (state == v1::JOB_STATE_QUEUED) notifier_.notify(kQueueChannel, job_id);
}

absl::StatusOr<v1::Job> JobStore::submit(const std::string& tenant, const v1::Job& job,
                                         const std::string& fingerprint) {
  const absl::StatusOr<std::string> spec = to_json(job.spec());
  if (!spec.ok()) return spec.status();
  const absl::StatusOr<std::string> forecast = to_json(job.forecast());
  if (!forecast.ok()) return forecast.status();
  const std::string event = to_hex(state_changed(v1::JOB_STATE_QUEUED, "submitted"));

  std::string created;
  absl::StatusOr<v1::Job> result;
  const auto insert = [&](pqxx::work& work) -> absl::Status {
    created.clear();
    const pqxx::result rows = run(work, kInsertJob, tenant, job.request_id(), fingerprint, *spec,
                                  *forecast, job.model_digest(), event);
    if (rows.empty()) {
      result = job_for_request(work, tenant, job.request_id(), fingerprint);
    } else {
      created = rows.front()[0].c_str();
      result = read_job(work, tenant, created);
    }
    return result.status();
  };
  // Without a request_id a second insert would be a second job.
  const absl::Status status = job.request_id().empty()
                                  ? database_.transact(insert)
                                  : database_.transact_again_if_in_doubt(insert);
  if (!status.ok()) return status;
  if (!created.empty()) announce(created, v1::JOB_STATE_QUEUED);
  return result;
}

absl::StatusOr<std::optional<v1::Job>> JobStore::find_submitted(const std::string& tenant,
                                                                const std::string& request_id,
                                                                const std::string& fingerprint) {
  std::optional<v1::Job> found;
  const absl::Status status = database_.transact([&](pqxx::work& work) -> absl::Status {
    found.reset();
    if (run(work, kReadJobByRequest, tenant, request_id).empty()) return absl::OkStatus();
    absl::StatusOr<v1::Job> job = job_for_request(work, tenant, request_id, fingerprint);
    if (!job.ok()) return job.status();
    found = *std::move(job);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return found;
}

absl::StatusOr<v1::Job> JobStore::get(const std::string& tenant, const std::string& job_id) {
  if (!is_uuid(job_id)) return no_such_job(job_id);
  absl::StatusOr<v1::Job> job;
  const absl::Status status = database_.transact([&](pqxx::work& work) {
    job = read_job(work, tenant, job_id);
    return job.status();
  });
  if (!status.ok()) return status;
  return job;
}

absl::StatusOr<JobStore::Page> JobStore::list(const std::string& tenant, int page_size,
                                              const std::string& position) {
  const absl::StatusOr<Position> start = parse_position(position);
  if (!start.ok()) return start.status();
  if (page_size < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("page_size: ", page_size, ", must be at least 1"));
  }
  Page page;
  const absl::Status status = database_.transact([&](pqxx::work& work) {
    page = {};
    // One more than asked for tells whether there is a next page.
    const pqxx::result rows = run(work, kListJobs, tenant, start->create_us, start->job_id,
                                  static_cast<int64_t>(page_size) + 1);
    for (const pqxx::row& row : rows) {
      if (static_cast<int>(page.jobs.size()) == page_size) {
        page.next = position_after(rows[page_size - 1]);
        break;
      }
      absl::StatusOr<v1::Job> job = job_from_row(row);
      if (!job.ok()) return job.status();
      page.jobs.push_back(std::move(job).value());
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return page;
}

absl::StatusOr<v1::Job> JobStore::request_cancel(const std::string& tenant,
                                                 const std::string& job_id) {
  if (!is_uuid(job_id)) return no_such_job(job_id);
  const std::string event =
      to_hex(state_changed(v1::JOB_STATE_CANCELLED, "cancelled on request before it ran"));
  absl::StatusOr<v1::Job> job;
  const absl::Status status =
      database_.transact_again_if_in_doubt([&](pqxx::work& work) -> absl::Status {
        const pqxx::result rows = run(work, kLockJob, job_id, tenant);
        if (rows.empty()) return no_such_job(job_id);
        const char* state = rows.front()[0].c_str();
        switch (state_from_name(state)) {
          case v1::JOB_STATE_QUEUED:
          case v1::JOB_STATE_PAUSED:
            run(work, kCancelWaitingJob, job_id, tenant, event);
            break;
          case v1::JOB_STATE_RUNNING:
            run(work, kRequestCancel, job_id, tenant);
            break;
          case v1::JOB_STATE_CANCELLED:
            break;
          default:
            return absl::FailedPreconditionError(absl::StrCat(
                "job 'jobs/", job_id, "' has already ", state, " and cannot be cancelled"));
        }
        job = read_job(work, tenant, job_id);
        return job.status();
      });
  if (!status.ok()) return status;
  announce(job_id, job->state());
  return job;
}

absl::StatusOr<std::vector<v1::JobEvent>> JobStore::events_after(const std::string& job_id,
                                                                 int64_t after, int limit) {
  std::vector<v1::JobEvent> events;
  if (!is_uuid(job_id)) return events;
  const absl::Status status = database_.transact([&](pqxx::work& work) -> absl::Status {
    events.clear();
    for (const pqxx::row& row : run(work, kEventsAfter, job_id, after, limit)) {
      v1::JobEvent event;
      const absl::Status parsed = from_hex(row["payload"].c_str(), "payload", event);
      if (!parsed.ok()) return parsed;
      event.set_number(row["number"].as<int64_t>());
      event.set_attempt(row["attempt"].as<int>());
      *event.mutable_time() = to_timestamp(row["time_us"].as<int64_t>());
      events.push_back(std::move(event));
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return events;
}

absl::StatusOr<std::vector<StoredFile>> JobStore::artifacts(const std::string& tenant,
                                                            const std::string& job_id) {
  if (!is_uuid(job_id)) return no_such_job(job_id);
  std::vector<StoredFile> files;
  const absl::Status status = database_.transact([&](pqxx::work& work) -> absl::Status {
    files.clear();
    const pqxx::result rows = run(work, kListArtifacts, job_id, tenant);
    if (rows.empty()) return no_such_job(job_id);
    for (const pqxx::row& row : rows) {
      if (!row["name"].is_null()) files.push_back(file_from_row(row));
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return files;
}

absl::StatusOr<JobStore::Statistics> JobStore::statistics() {
  Statistics statistics;
  const absl::Status status = database_.transact([&](pqxx::work& work) {
    statistics = {};
    for (int state = v1::JobState_MIN + 1; state <= v1::JobState_MAX; ++state) {
      statistics.jobs_by_state[state_name(static_cast<v1::JobState>(state))] = 0;
    }
    for (const pqxx::row& row : run(work, kCountStates)) {
      statistics.jobs_by_state[row["state"].c_str()] = row["jobs"].as<int64_t>();
    }
    statistics.oldest_queued_seconds = run(work, kOldestDue).front()[0].as<double>();
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return statistics;
}

absl::StatusOr<std::vector<std::string>> JobStore::collectable(
    const std::vector<std::string>& prefixes) {
  std::vector<std::string> jobs;
  std::vector<std::string> attempts;
  std::vector<std::string> known;
  for (const std::string& prefix : prefixes) {
    std::string job_id;
    int attempt = 0;
    if (!parse_attempt_prefix(prefix, job_id, attempt)) continue;
    jobs.push_back(job_id);
    attempts.push_back(absl::StrCat(attempt));
    known.push_back(prefix);
  }
  std::vector<std::string> result;
  const absl::Status status = database_.transact([&](pqxx::work& work) {
    result.clear();
    for (const pqxx::row& row :
         run(work, kCollectable, to_array(jobs), to_array(attempts), to_array(known))) {
      result.emplace_back(row["prefix"].c_str());
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return result;
}

}  // namespace qaas
