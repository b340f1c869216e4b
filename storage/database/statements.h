#pragma once

#include <pqxx/pqxx>

/// Every SQL statement of the program, but for the migrations. Values are parameters, never text.
///
/// Conventions. Binary columns travel as hex (encode/decode), since both libpqxx 6 and 7 handle
/// text alike. Times travel as microseconds since 1970. Empty text stands for NULL (NULLIF).
/// Times are clock_timestamp(), never now(): a transaction that waited for a lock must not write
/// the time at which it began. Rows are locked in one order: job, then job_lease.
///
/// The fence is spelled out in each worker's statement: id, attempt, lease_token and state.
namespace qaas {

struct Statement {
  const char* name;
  const char* sql;
};

/// Executes a statement, prepared once per connection.
template <typename... Arguments>
pqxx::result run(pqxx::work& work, const Statement& statement, const Arguments&... arguments) {
#if PQXX_VERSION_MAJOR < 7
  // Only notes the text; the first execution on a connection prepares it.
  work.conn().prepare(statement.name, statement.sql);
  return work.exec_prepared(statement.name, arguments...);
#else
  return work.exec_params(statement.sql, arguments...);
#endif
}

// ---- schema ----

inline constexpr Statement kHasSchemaVersion{"has_schema_version",
                                             "SELECT to_regclass('schema_version')"};
inline constexpr Statement kReadSchemaVersion{
    "read_schema_version", "SELECT coalesce(max(number), 0) FROM schema_version"};
inline constexpr Statement kLiftStatementTimeout{
    "lift_statement_timeout", "SELECT set_config('statement_timeout', '0', true)"};
// One lock per schema, so that tests in schemas of their own do not wait for each other.
inline constexpr Statement kLockSchema{
    "lock_schema",
    "SELECT pg_advisory_xact_lock(hashtextextended('qaas:' || current_schema(), 0))"};
inline constexpr char kCreateSchemaVersion[] = R"sql(
CREATE TABLE schema_version (
  number integer PRIMARY KEY,
  name text NOT NULL,
  applied_time timestamptz NOT NULL DEFAULT clock_timestamp()
))sql";
inline constexpr Statement kRecordMigration{
    "record_migration", "INSERT INTO schema_version (number, name) VALUES ($1, $2)"};

// ---- callers' side ----

// The columns that job_from_row (job_row.h) reads.
#define QAAS_JOB_COLUMNS                                                                        \
  "job.id, job.tenant, job.state, job.requested, job.request_id, job.fingerprint, job.attempt," \
  " job.failures, job.model_digest, job.last_event, job.spec, job.forecast, job.evaluation,"    \
  " job.failure, encode(job_lease.progress, 'hex') AS progress,"                                \
  " (extract(epoch FROM job.create_time) * 1000000)::bigint AS create_us,"                      \
  " (extract(epoch FROM job.start_time) * 1000000)::bigint AS start_us,"                        \
  " (extract(epoch FROM job.end_time) * 1000000)::bigint AS end_us,"                            \
  " (extract(epoch FROM job.update_time) * 1000000)::bigint AS update_us"                       \
  " FROM job LEFT JOIN job_lease ON job_lease.job = job.id "

// No row comes back when the tenant has used the request_id before.
inline constexpr Statement kInsertJob{"insert_job", R"sql(
WITH created AS (
  INSERT INTO job (tenant, request_id, fingerprint, spec, forecast, model_digest, last_event)
  VALUES ($1, NULLIF($2, ''), CASE WHEN $2 <> '' THEN $3 END, $4::jsonb, $5::jsonb, $6, 1)
  ON CONFLICT (tenant, request_id) WHERE request_id IS NOT NULL DO NOTHING
  RETURNING id, create_time
), event AS (
  INSERT INTO job_event (job, number, attempt, time, payload)
  SELECT id, 1, 0, create_time, decode($7, 'hex') FROM created
)
SELECT id FROM created)sql"};

inline constexpr Statement kReadJob{
    "read_job", "SELECT " QAAS_JOB_COLUMNS "WHERE job.id = $1::uuid AND job.tenant = $2"};

inline constexpr Statement kReadJobByRequest{"read_job_by_request",
                                             "SELECT " QAAS_JOB_COLUMNS
                                             "WHERE job.tenant = $1 AND job.request_id = $2"};

inline constexpr Statement kListJobs{"list_jobs", "SELECT " QAAS_JOB_COLUMNS R"sql(
 WHERE job.tenant = $1
   AND (job.create_time, job.id) <
       (coalesce(timestamptz 'epoch' + NULLIF($2, '')::bigint * interval '1 microsecond',
                 'infinity'),
        coalesce(NULLIF($3, '')::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY job.create_time DESC, job.id DESC LIMIT $4)sql"};

inline constexpr Statement kLockJob{
    "lock_job", "SELECT state FROM job WHERE id = $1::uuid AND tenant = $2 FOR UPDATE"};

inline constexpr Statement kCancelWaitingJob{"cancel_waiting_job", R"sql(
WITH cancelled AS (
  UPDATE job SET state = 'cancelled', failure = NULL, end_time = clock_timestamp(),
         update_time = clock_timestamp(), last_event = last_event + 1
   WHERE id = $1::uuid AND tenant = $2 AND state IN ('queued', 'paused')
  RETURNING id, attempt, last_event
), files AS (
  DELETE FROM job_checkpoint USING cancelled WHERE job_checkpoint.job = cancelled.id
)
INSERT INTO job_event (job, number, attempt, time, payload)
SELECT id, last_event, attempt, clock_timestamp(), decode($3, 'hex') FROM cancelled)sql"};

inline constexpr Statement kRequestCancel{"request_cancel", R"sql(
UPDATE job SET requested = 'cancel', update_time = clock_timestamp()
 WHERE id = $1::uuid AND tenant = $2 AND state = 'running' AND requested <> 'cancel')sql"};

inline constexpr Statement kEventsAfter{"events_after", R"sql(
SELECT number, attempt, (extract(epoch FROM time) * 1000000)::bigint AS time_us,
       encode(payload, 'hex') AS payload
  FROM job_event WHERE job = $1::uuid AND number > $2 ORDER BY number LIMIT $3)sql"};

// One row without a name for a job that has no files, none for a job that does not exist.
inline constexpr Statement kListArtifacts{"list_artifacts", R"sql(
SELECT file.name, file.key, file.size_bytes, file.sha256
  FROM job LEFT JOIN job_artifact AS file ON file.job = job.id
 WHERE job.id = $1::uuid AND job.tenant = $2 ORDER BY file.name COLLATE "C")sql"};

// ---- claim ----

// Tenants that have a job to run, the one furthest below its share first. Each LATERAL reads one
// index entry or the tenant's few running jobs, so the cost does not grow with the queue.
inline constexpr Statement kTenantsByShare{"tenants_by_share", R"sql(
SELECT tenant.id
  FROM tenant
 CROSS JOIN LATERAL (
   SELECT create_time FROM job
    WHERE job.tenant = tenant.id AND state = 'queued' AND due_time <= clock_timestamp()
    ORDER BY priority DESC, create_time, id LIMIT 1) AS head
 CROSS JOIN LATERAL (
   SELECT count(*) AS jobs FROM job WHERE job.tenant = tenant.id AND state = 'running') AS running
 ORDER BY running.jobs / tenant.weight, head.create_time, tenant.id)sql"};

// The pick is a CTE of its own: a LIMIT inside the UPDATE's subquery could be run again by the
// planner and lock more rows than one. The UPDATE re-checks the state.
inline constexpr Statement kClaimJob{"claim_job", R"sql(
WITH picked AS MATERIALIZED (
  SELECT id FROM job
   WHERE tenant = $1 AND state = 'queued' AND due_time <= clock_timestamp()
   ORDER BY priority DESC, create_time, id LIMIT 1 FOR UPDATE SKIP LOCKED
), claimed AS (
  UPDATE job SET state = 'running', attempt = attempt + 1, lease_token = $2::uuid, failure = NULL,
         start_time = coalesce(start_time, clock_timestamp()), update_time = clock_timestamp(),
         last_event = last_event + 1
    FROM picked WHERE job.id = picked.id AND job.state = 'queued'
  RETURNING job.id, job.tenant, job.attempt, job.last_event, job.update_time
), lease AS (
  INSERT INTO job_lease (job, worker, leased_until)
  SELECT id, $3, clock_timestamp() + $4::bigint * interval '1 millisecond' FROM claimed
), attempt AS (
  INSERT INTO job_attempt (job, attempt, worker, lease_token, start_time)
  SELECT id, attempt, $3, $2::uuid, update_time FROM claimed
), event AS (
  INSERT INTO job_event (job, number, attempt, time, payload)
  SELECT id, last_event, attempt, update_time, decode($5, 'hex') FROM claimed
)
SELECT id, tenant FROM claimed)sql"};

// Answers a claim whose commit was in doubt.
inline constexpr Statement kFindClaim{
    "find_claim", "SELECT id, tenant FROM job WHERE state = 'running' AND lease_token = $1::uuid"};

inline constexpr Statement kListCheckpoints{"list_checkpoints", R"sql(
SELECT name, key, size_bytes, sha256 FROM job_checkpoint
 WHERE job = $1::uuid ORDER BY name COLLATE "C")sql"};

// ---- workers' side ----

inline constexpr Statement kRenewLease{"renew_lease", R"sql(
UPDATE job_lease SET leased_until = clock_timestamp() + $4::bigint * interval '1 millisecond'
  FROM job
 WHERE job.id = $1::uuid AND job.attempt = $2 AND job.lease_token = $3::uuid
   AND job.state = 'running' AND job_lease.job = job.id
RETURNING job.requested)sql"};

inline constexpr Statement kSetProgress{"set_progress", R"sql(
UPDATE job_lease SET progress = decode($4, 'hex')
  FROM job
 WHERE job.id = $1::uuid AND job.attempt = $2 AND job.lease_token = $3::uuid
   AND job.state = 'running' AND job_lease.job = job.id)sql"};

// $4: the payloads' hex, as an array. Returns the number of the last event.
inline constexpr Statement kAppendEvents{"append_events", R"sql(
WITH written AS (
  UPDATE job SET last_event = last_event + cardinality($4::text[]), update_time = clock_timestamp()
   WHERE id = $1::uuid AND attempt = $2 AND lease_token = $3::uuid AND state = 'running'
  RETURNING id, attempt, last_event
), event AS (
  INSERT INTO job_event (job, number, attempt, time, payload)
  SELECT written.id, written.last_event - cardinality($4::text[]) + payload.position,
         written.attempt, clock_timestamp(), decode(payload.hex, 'hex')
    FROM written, unnest($4::text[]) WITH ORDINALITY AS payload (hex, position)
)
SELECT last_event FROM written)sql"};

// Answers an append whose commit was in doubt: whether event $3 is the one this attempt wrote.
// Locking the job first waits for a commit that is still under way.
inline constexpr Statement kLockJobOfLease{"lock_job_of_lease",
                                           "SELECT FROM job WHERE id = $1::uuid FOR UPDATE"};
inline constexpr Statement kFindEvent{"find_event", R"sql(
SELECT FROM job_event
 WHERE job = $1::uuid AND attempt = $2 AND number = $3 AND payload = decode($4, 'hex'))sql"};

inline constexpr Statement kAddCheckpoint{"add_checkpoint", R"sql(
INSERT INTO job_checkpoint (job, name, attempt, key, size_bytes, sha256)
SELECT id, $4, attempt, $5, $6, $7 FROM job
 WHERE id = $1::uuid AND attempt = $2 AND lease_token = $3::uuid AND state = 'running'
ON CONFLICT (job, name) DO UPDATE SET attempt = excluded.attempt, key = excluded.key,
   size_bytes = excluded.size_bytes, sha256 = excluded.sha256)sql"};

inline constexpr Statement kAddArtifact{"add_artifact", R"sql(
INSERT INTO job_artifact (job, name, attempt, key, size_bytes, sha256)
SELECT id, $4, attempt, $5, $6, $7 FROM job
 WHERE id = $1::uuid AND attempt = $2 AND lease_token = $3::uuid AND state = 'running')sql"};

inline constexpr Statement kLockLease{"lock_lease", R"sql(
SELECT requested FROM job
 WHERE id = $1::uuid AND attempt = $2 AND lease_token = $3::uuid AND state = 'running'
   FOR UPDATE)sql"};

inline constexpr Statement kEarlierFailures{"earlier_failures", R"sql(
SELECT failure FROM job_attempt WHERE job = $1::uuid AND failure IS NOT NULL
 ORDER BY attempt)sql"};

// Ends an attempt. $4: the job's new state. $5: why the attempt failed, or ''. $6: the evaluation,
// or ''. $7: backoff in milliseconds. $8: payload of the event. A job that will not run again has
// no use for its checkpoints, except that a failed one may be retried by hand.
inline constexpr Statement kSettle{"settle", R"sql(
WITH settled AS (
  UPDATE job SET state = $4::job_state, requested = 'none', lease_token = NULL,
         failures = failures + ($5 <> '')::integer,
         failure = CASE WHEN $4::job_state IN ('queued', 'paused', 'failed')
                        THEN NULLIF($5, '')::jsonb END,
         evaluation = NULLIF($6, '')::jsonb,
         due_time = CASE WHEN $4::job_state = 'queued'
                         THEN clock_timestamp() + $7::bigint * interval '1 millisecond'
                         ELSE due_time END,
         end_time = CASE WHEN $4::job_state IN ('succeeded', 'failed', 'cancelled')
                         THEN clock_timestamp() END,
         update_time = clock_timestamp(), last_event = last_event + 1
   WHERE id = $1::uuid AND attempt = $2 AND lease_token = $3::uuid AND state = 'running'
  RETURNING id, attempt, last_event, state
), lease AS (
  DELETE FROM job_lease USING settled WHERE job_lease.job = settled.id
), ended AS (
  UPDATE job_attempt SET end_time = clock_timestamp(), outcome = settled.state,
         failure = NULLIF($5, '')::jsonb
    FROM settled WHERE job_attempt.job = settled.id AND job_attempt.attempt = settled.attempt
), files AS (
  DELETE FROM job_checkpoint USING settled
   WHERE job_checkpoint.job = settled.id AND settled.state IN ('succeeded', 'cancelled')
)
INSERT INTO job_event (job, number, attempt, time, payload)
SELECT id, last_event, attempt, clock_timestamp(), decode($8, 'hex') FROM settled)sql"};

// How this very attempt ended, if it ended with failure $4 ('' for none).
inline constexpr Statement kReadOutcome{"read_outcome", R"sql(
SELECT outcome FROM job_attempt
 WHERE job = $1::uuid AND attempt = $2 AND lease_token = $3::uuid AND outcome IS NOT NULL
   AND failure IS NOT DISTINCT FROM NULLIF($4, '')::jsonb)sql"};

// ---- rescue ----

inline constexpr Statement kExpiredLeases{
    "expired_leases", "SELECT job FROM job_lease WHERE leased_until < clock_timestamp()"};

// The job first, then its lease. SKIP LOCKED: whoever holds the job is settling or rescuing it.
inline constexpr Statement kLockRunningJob{"lock_running_job", R"sql(
SELECT attempt, lease_token, requested FROM job
 WHERE id = $1::uuid AND state = 'running' FOR UPDATE SKIP LOCKED)sql"};
inline constexpr Statement kLockExpiredLease{"lock_expired_lease", R"sql(
SELECT worker FROM job_lease
 WHERE job = $1::uuid AND leased_until < clock_timestamp() FOR UPDATE)sql"};

// ---- figures, clean-up, wake-up ----

inline constexpr Statement kCountStates{"count_states",
                                        "SELECT state, count(*) AS jobs FROM job GROUP BY state"};
inline constexpr Statement kOldestDue{"oldest_due", R"sql(
SELECT greatest(0, extract(epoch FROM clock_timestamp() - min(due_time)))::double precision
  FROM job WHERE state = 'queued')sql"};

// Which of the prefixes ($3; $1: their jobs, $2: their attempts) are of attempts that are over for
// good and named by no row.
inline constexpr Statement kCollectable{"collectable", R"sql(
SELECT found.prefix
  FROM unnest($1::uuid[], $2::integer[], $3::text[]) AS found (job, attempt, prefix)
  JOIN job ON job.id = found.job
 WHERE (found.attempt < job.attempt OR job.end_time IS NOT NULL AND found.attempt = job.attempt)
   AND NOT EXISTS (SELECT FROM job_checkpoint AS file
                    WHERE file.job = found.job AND starts_with(file.key, found.prefix))
   AND NOT EXISTS (SELECT FROM job_artifact AS file
                    WHERE file.job = found.job AND starts_with(file.key, found.prefix))
 ORDER BY found.prefix COLLATE "C")sql"};

inline constexpr Statement kNotify{
    "notify", "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload"};

// ---- folders ----

inline constexpr Statement kListFolders{"list_folders", R"sql(
SELECT name, fingerprint, sha256, model FROM folder
 WHERE kind = $1 ORDER BY name COLLATE "C")sql"};
inline constexpr Statement kPutFolder{"put_folder", R"sql(
INSERT INTO folder (kind, name, fingerprint, sha256, model) VALUES ($1, $2, $3, $4, $5::jsonb)
ON CONFLICT (kind, name) DO UPDATE SET fingerprint = excluded.fingerprint,
   sha256 = excluded.sha256, model = excluded.model, update_time = clock_timestamp())sql"};
inline constexpr Statement kRemoveFolder{"remove_folder",
                                         "DELETE FROM folder WHERE kind = $1 AND name = $2"};

}  // namespace qaas
