-- Jobs, who works on them, and what happened to them.
--
-- Layout. `job` is written at state changes and once per batch of events; what changes every second
-- (lease, progress) lives in `job_lease`, which has a row per running job only. What people query
-- (spec, forecast, evaluation, failures) is proto JSON in jsonb; what only the service reads, and
-- reads often (event payloads, progress), is serialized protobuf in bytea.

CREATE TYPE job_state AS ENUM ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'paused');
CREATE TYPE job_request AS ENUM ('none', 'cancel', 'pause');

CREATE TABLE tenant (
  id text PRIMARY KEY CHECK (id <> ''),
  -- Share of the workers: a tenant of weight 2 runs twice as many jobs as one of weight 1.
  weight double precision NOT NULL DEFAULT 1 CHECK (weight > 0 AND weight < 'infinity'),
  create_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO tenant (id) VALUES ('default');

CREATE TABLE job (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  tenant text NOT NULL REFERENCES tenant,
  -- What the caller sent to make a retried submit harmless, and a digest of the body it came with.
  request_id text,
  fingerprint text,

  state job_state NOT NULL DEFAULT 'queued',
  -- What a running job's worker is asked to do.
  requested job_request NOT NULL DEFAULT 'none',
  -- Higher is claimed first, within a tenant.
  priority integer NOT NULL DEFAULT 0,
  -- Counts claims; the fence of every worker's write. Never reset.
  attempt integer NOT NULL DEFAULT 0,
  -- Counts failed attempts; the retry budget.
  failures integer NOT NULL DEFAULT 0,
  lease_token uuid,
  -- Not claimed before this time; later than the last settle when a failed attempt backs off.
  due_time timestamptz NOT NULL DEFAULT clock_timestamp(),

  spec jsonb NOT NULL,
  forecast jsonb NOT NULL,
  evaluation jsonb,
  -- Why the last attempt failed; all failures are in job_attempt.
  failure jsonb,
  model_digest text NOT NULL,

  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  start_time timestamptz,
  end_time timestamptz,
  update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Number of the latest event; counts up under this row's lock, so events have no gaps.
  last_event bigint NOT NULL DEFAULT 0 CHECK (last_event >= 0),

  CONSTRAINT job_request_id_has_fingerprint CHECK ((request_id IS NULL) = (fingerprint IS NULL)),
  CONSTRAINT job_running_has_lease CHECK ((state = 'running') = (lease_token IS NOT NULL)),
  CONSTRAINT job_settled_has_end
    CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (end_time IS NOT NULL)),
  CONSTRAINT job_succeeded_has_evaluation
    CHECK ((state = 'succeeded') = (evaluation IS NOT NULL)),
  CONSTRAINT job_failed_has_failure CHECK (state <> 'failed' OR failure IS NOT NULL),
  CONSTRAINT job_failure_is_shown_while_it_matters
    CHECK (failure IS NULL OR state IN ('queued', 'paused', 'failed')),
  CONSTRAINT job_started_has_attempt CHECK ((attempt > 0) = (start_time IS NOT NULL)),
  CONSTRAINT job_outcome_needs_attempt
    CHECK (attempt > 0 OR state IN ('queued', 'paused', 'cancelled')),
  CONSTRAINT job_counts CHECK (attempt >= failures AND failures >= 0),
  CONSTRAINT job_only_running_is_asked CHECK (requested = 'none' OR state = 'running')
);

CREATE UNIQUE INDEX job_by_request ON job (tenant, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX job_by_age ON job (tenant, create_time DESC, id DESC);
-- Claim: a tenant's best job is the first entry.
CREATE INDEX job_to_claim ON job (tenant, priority DESC, create_time, id) WHERE state = 'queued';
-- Claim: a tenant's running jobs, for its share; few entries.
CREATE INDEX job_running ON job (tenant) WHERE state = 'running';
-- Figures: jobs by state from the index alone, and the oldest queued one.
CREATE INDEX job_by_state ON job (state, due_time);

-- The state machine (drawn in ARCHITECTURE.md). Terminal states lead nowhere.
CREATE TABLE job_transition (
  from_state job_state,
  to_state job_state,
  PRIMARY KEY (from_state, to_state)
);
INSERT INTO job_transition (from_state, to_state) VALUES
  ('queued', 'running'),     -- claimed
  ('queued', 'cancelled'),
  ('queued', 'paused'),
  ('running', 'succeeded'),  -- published
  ('running', 'failed'),     -- for good
  ('running', 'cancelled'),
  ('running', 'paused'),
  ('running', 'queued'),     -- failed and retried, rescued, or released
  ('paused', 'queued'),      -- resumed
  ('paused', 'cancelled');

CREATE FUNCTION job_check_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  claimed boolean := NEW.state = 'running' AND OLD.state <> 'running';
BEGIN
  IF NEW.state <> OLD.state AND NOT EXISTS (
    SELECT FROM job_transition WHERE from_state = OLD.state AND to_state = NEW.state
  ) THEN
    RAISE EXCEPTION 'job %: no transition from % to %', OLD.id, OLD.state, NEW.state
      USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.attempt <> OLD.attempt + claimed::integer THEN
    RAISE EXCEPTION 'job %: attempt goes from % to %, but changes by one at a claim and only then',
      OLD.id, OLD.attempt, NEW.attempt USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER job_check_change BEFORE UPDATE OF state, attempt ON job
  FOR EACH ROW EXECUTE FUNCTION job_check_change();

CREATE FUNCTION job_check_start() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'job %: starts as %, but every job starts as queued', NEW.id, NEW.state
    USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER job_check_start BEFORE INSERT ON job
  FOR EACH ROW WHEN (NEW.state <> 'queued') EXECUTE FUNCTION job_check_start();

-- One row per running job: written every second, so narrow, and without an index on anything that
-- changes. Rescue reads all of it; there are no more rows than workers. Locks are taken on job
-- first, then here.
CREATE TABLE job_lease (
  job uuid PRIMARY KEY REFERENCES job ON DELETE CASCADE,
  worker text NOT NULL,
  leased_until timestamptz NOT NULL,
  progress bytea
) WITH (fillfactor = 50);

-- One row per claim: history, and the answer to "did my settle go through?".
CREATE TABLE job_attempt (
  job uuid NOT NULL REFERENCES job ON DELETE CASCADE,
  attempt integer NOT NULL CHECK (attempt > 0),
  worker text NOT NULL,
  lease_token uuid NOT NULL,
  start_time timestamptz NOT NULL,
  end_time timestamptz,
  -- The state the attempt left the job in, and why it failed if it did.
  outcome job_state CHECK (outcome <> 'running'),
  failure jsonb,
  PRIMARY KEY (job, attempt),
  CHECK ((end_time IS NULL) = (outcome IS NULL)),
  CHECK (failure IS NULL OR outcome IS NOT NULL)
);

CREATE TABLE job_event (
  job uuid NOT NULL REFERENCES job ON DELETE CASCADE,
  number bigint NOT NULL CHECK (number > 0),
  attempt integer NOT NULL,
  time timestamptz NOT NULL,
  -- qaas.v1.JobEvent without number, time and attempt.
  payload bytea NOT NULL,
  PRIMARY KEY (job, number)
);

-- Files a later attempt resumes from. A file is visible once its row is.
CREATE TABLE job_checkpoint (
  job uuid NOT NULL REFERENCES job ON DELETE CASCADE,
  name text NOT NULL CHECK (name <> ''),
  attempt integer NOT NULL,
  key text NOT NULL CHECK (key <> ''),
  size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
  sha256 text NOT NULL,
  PRIMARY KEY (job, name)
);

-- Files of a succeeded job.
CREATE TABLE job_artifact (
  job uuid NOT NULL REFERENCES job ON DELETE CASCADE,
  name text NOT NULL CHECK (name <> ''),
  attempt integer NOT NULL,
  key text NOT NULL CHECK (key <> ''),
  size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
  sha256 text NOT NULL,
  PRIMARY KEY (job, name)
);

-- What a scan of the model and dataset roots found, remembered between restarts.
CREATE TABLE folder (
  kind text NOT NULL CHECK (kind IN ('model', 'dataset')),
  name text NOT NULL CHECK (name <> ''),
  fingerprint text NOT NULL,
  sha256 text NOT NULL,
  model jsonb NOT NULL,
  update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (kind, name)
);
