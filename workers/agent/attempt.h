#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "storage/artifacts/artifact_store.h"
#include "storage/database/job_store.h"
#include "telemetry/logging.h"
#include "workers/agent/agent_metrics.h"
#include "workers/agent/attempt_control.h"
#include "workers/agent/engine_run.h"
#include "workers/agent/event_sender.h"
#include "workers/agent/job_folder.h"
#include "workers/agent/scratch_folder.h"

namespace qaas {

/// Settings of every attempt a worker makes.
struct AttemptOptions {
  JobRoots roots;
  /// Length of a lease; the JobStore's.
  std::chrono::milliseconds lease{15000};
  EngineRunOptions engine;
  EventSenderOptions events;
};

/// What attempts work with. All outlive the attempt.
struct AttemptContext {
  JobStore& jobs;
  ArtifactStore& artifacts;
  ScratchFolder& scratch;
  AgentMetrics& metrics;
};

/// One claimed job, from claim to settlement. The numbered order: keep the lease, prepare the
/// scratch folder, run the engine and forward its events, then settle by how it ended. Whatever it
/// writes is fenced by the lease; when the job turns out to be someone else's, the engine is killed
/// and the work dropped. For one use, on a thread that lives as long as the worker (see
/// ChildProcess).
class Attempt {
 public:
  Attempt(AttemptContext context, const AttemptOptions& options, ClaimedJob claimed,
          AttemptControl& control);

  /// `claimed_at`: a time before the claim was sent. Returns when the job is settled, given back or
  /// lost, or when `control` said to give up.
  AttemptOutcome run(AttemptControl::Clock::time_point claimed_at);

  /// The class of the failure the attempt ended with; unspecified if it did not fail.
  v1::FailureClass failure_class() const { return failure_class_; }

 private:
  AttemptOutcome work();
  absl::StatusOr<EngineEnding> run_engine_in(const JobFolder& folder, EventSender& sender);
  void forward(const v1::EngineEvent& event, EventSender& sender);
  AttemptOutcome conclude(const JobFolder& folder, EventSender& sender, const EngineEnding& ending);
  AttemptOutcome publish(const JobFolder& folder, EventSender& sender);
  absl::StatusOr<StoredFile> store_file(const JobFolder& folder, const std::string& name);

  AttemptOutcome settle_failed(const v1::Failure& failure);
  AttemptOutcome settle_cancelled();
  AttemptOutcome release(AttemptOutcome outcome);
  void limit_retries_to_a_lease();
  AttemptOutcome give_back_expired();
  AttemptOutcome outcome_of(const absl::Status& settled, AttemptOutcome outcome);
  std::string scratch_name() const;

  AttemptContext context_;
  const AttemptOptions& options_;
  const ClaimedJob claimed_;
  AttemptControl& control_;
  const LogFields log_fields_;
  v1::FailureClass failure_class_ = v1::FAILURE_CLASS_UNSPECIFIED;
  // Of the engine's events; written by the event reader, read after run_engine.
  std::vector<std::string> artifact_files_;
  v1::Evaluation evaluation_;
};

}  // namespace qaas
