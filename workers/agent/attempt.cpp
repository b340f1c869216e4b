#include "workers/agent/attempt.h"

#include <system_error>
#include <utility>

#include <absl/strings/str_cat.h>

#include "workers/agent/failure_table.h"
#include "workers/agent/lease_keeper.h"
#include "workers/agent/resource_names.h"
#include "workers/agent/retry.h"

namespace qaas {
namespace {

/// Tries of one file while the artifact store is out of reach. A full store fails at once: the
/// retry of the job has the longer backoff.
constexpr int kStoreTries = 5;

v1::JobEvent warning(const std::string& message) {
  v1::JobEvent event;
  event.mutable_warning()->set_message(message);
  return event;
}

}  // namespace

Attempt::Attempt(AttemptContext context, const AttemptOptions& options, ClaimedJob claimed,
                 AttemptControl& control)
    : context_(context),
      options_(options),
      claimed_(std::move(claimed)),
      control_(control),
      log_fields_{.job = claimed_.lease.job_id, .attempt = claimed_.lease.attempt} {}

AttemptOutcome Attempt::run(AttemptControl::Clock::time_point claimed_at) {
  const LeaseKeeper keeper(context_.jobs, claimed_.lease, options_.lease, claimed_at, control_,
                           context_.metrics);
  const AttemptOutcome outcome = work();
  context_.scratch.remove(scratch_name());
  if (outcome == AttemptOutcome::kLeaseLost) {
    context_.metrics.lease_lost();
  }
  return outcome;
}

std::string Attempt::scratch_name() const {
  return absl::StrCat(claimed_.lease.job_id, "-", claimed_.lease.attempt);
}

AttemptOutcome Attempt::work() {
  const auto path = context_.scratch.make(scratch_name());
  if (!path.ok()) {
    return settle_failed(classify_status(path.status()));
  }
  const JobFolder folder(*path);
  EventSender sender(context_.jobs, context_.artifacts, claimed_.lease, folder.checkpoints(),
                     options_.events, control_, context_.metrics);
  const auto ending = run_engine_in(folder, sender);
  if (!ending.ok()) {
    const absl::Status sent = sender.finish();
    const auto signals = control_.signals();
    if (absl::IsAborted(sent) || signals.lost) {
      return AttemptOutcome::kLeaseLost;
    }
    if (signals.cancel) {
      return settle_cancelled();
    }
    if (signals.expired) {
      return give_back_expired();
    }
    if (signals.shutdown) {
      return release(AttemptOutcome::kReleased);
    }
    return settle_failed(classify_status(ending.status()));
  }
  return conclude(folder, sender, *ending);
}

absl::StatusOr<EngineEnding> Attempt::run_engine_in(const JobFolder& folder, EventSender& sender) {
  const auto arguments = folder.engine_arguments(claimed_.job.spec(), options_.roots);
  if (!arguments.ok()) {
    return arguments.status();
  }
  const absl::Status written = folder.write(claimed_.job);
  if (!written.ok()) {
    return written;
  }
  std::vector<std::string> warnings;
  const absl::Status placed =
      folder.place_checkpoints(context_.artifacts, claimed_.checkpoints, warnings);
  for (const std::string& text : warnings) {
    log_warning(text, log_fields_);
    sender.push(warning(text));
  }
  if (!placed.ok()) {
    return placed;
  }
  const auto signals = control_.signals();
  if (signals.lost || signals.expired || signals.cancel || signals.shutdown) {
    return absl::CancelledError("stopped before the engine started");
  }
  const auto engine = ChildProcess::spawn(*arguments, folder.path());
  if (!engine.ok()) {
    return engine.status();
  }
  log_info(absl::StrCat("engine started, process ", (*engine)->id()), log_fields_);
  return run_engine(
      **engine, options_.engine, control_, context_.metrics,
      [&](const v1::EngineEvent& event) { forward(event, sender); },
      [&](const std::string& line) { log_info(absl::StrCat("engine: ", line), log_fields_); });
}

void Attempt::forward(const v1::EngineEvent& event, EventSender& sender) {
  v1::JobEvent forwarded;
  switch (event.event_case()) {
    case v1::EngineEvent::kPhaseStarted:
      context_.metrics.phase(event.phase_started().phase());
      *forwarded.mutable_phase_started() = event.phase_started();
      break;
    case v1::EngineEvent::kProgress:
      context_.metrics.progress(event.progress());
      sender.push_progress(event.progress());
      return;
    case v1::EngineEvent::kBlockFinished:
      *forwarded.mutable_block_finished() = event.block_finished();
      break;
    case v1::EngineEvent::kCheckpointWritten:
      *forwarded.mutable_checkpoint_written() = event.checkpoint_written();
      break;
    case v1::EngineEvent::kEvaluation:
      evaluation_ = event.evaluation();
      *forwarded.mutable_evaluation() = event.evaluation();
      break;
    case v1::EngineEvent::kWarning:
      *forwarded.mutable_warning() = event.warning();
      break;
    case v1::EngineEvent::kTrainingCurve:
      *forwarded.mutable_training_curve() = event.training_curve();
      break;
    case v1::EngineEvent::kSignalReport:
      *forwarded.mutable_signal_report() = event.signal_report();
      break;
    case v1::EngineEvent::kAutomaticDecision:
      *forwarded.mutable_automatic_decision() = event.automatic_decision();
      break;
    case v1::EngineEvent::kArtifactWritten:
      artifact_files_.assign(event.artifact_written().files().begin(),
                             event.artifact_written().files().end());
      return;
    case v1::EngineEvent::kFailure:
    case v1::EngineEvent::EVENT_NOT_SET:  // of a newer engine
      return;
  }
  sender.push(std::move(forwarded));
}

AttemptOutcome Attempt::conclude(const JobFolder& folder, EventSender& sender,
                                 const EngineEnding& ending) {
  const auto failure = classify_engine_ending(ending);
  const auto signals = control_.signals();
  const bool told_to_stop = signals.lost || signals.expired || signals.cancel || signals.shutdown;
  context_.metrics.engine_ended(!failure       ? "succeeded"
                                : told_to_stop ? "stopped"
                                               : failure_class_name(failure->failure_class()));
  if (signals.lost) {
    return AttemptOutcome::kLeaseLost;
  }
  if (!failure && !signals.cancel) {
    return publish(folder, sender);
  }
  if (signals.expired) {
    limit_retries_to_a_lease();
  }
  const absl::Status sent = sender.finish();
  if (absl::IsAborted(sent)) {
    return AttemptOutcome::kLeaseLost;
  }
  if (signals.cancel) {
    return settle_cancelled();
  }
  if (signals.expired) {
    return give_back_expired();
  }
  if (signals.shutdown && (!ending.reported || ending.process.exit_code == kEngineStopped)) {
    return release(AttemptOutcome::kReleased);
  }
  return settle_failed(*failure);
}

AttemptOutcome Attempt::publish(const JobFolder& folder, EventSender& sender) {
  v1::JobEvent publishing;
  publishing.mutable_phase_started()->set_phase(v1::PHASE_PUBLISHING);
  sender.push(std::move(publishing));
  context_.metrics.phase(v1::PHASE_PUBLISHING);

  std::vector<StoredFile> files;
  for (const std::string& name : artifact_files_) {
    const auto signals = control_.signals();
    const bool too_late = AttemptControl::Clock::now() >= control_.give_up_at();
    if (signals.lost || signals.cancel || too_late) {
      sender.finish().IgnoreError();
      return signals.lost     ? AttemptOutcome::kLeaseLost
             : signals.cancel ? settle_cancelled()
                              : release(AttemptOutcome::kReleased);
    }
    auto stored = store_file(folder, name);
    if (!stored.ok()) {
      sender.finish().IgnoreError();
      return settle_failed(classify_status(stored.status()));
    }
    files.push_back(std::move(*stored));
  }
  const absl::Status sent = sender.finish();
  if (absl::IsAborted(sent)) {
    return AttemptOutcome::kLeaseLost;
  }
  const absl::Status settled = retry_write(
      control_, [&] { return context_.jobs.settle_succeeded(claimed_.lease, files, evaluation_); });
  if (!settled.ok() && !absl::IsAborted(settled) && !is_passing(settled)) {
    return settle_failed(classify_status(settled));
  }
  return outcome_of(settled, AttemptOutcome::kSucceeded);
}

absl::StatusOr<StoredFile> Attempt::store_file(const JobFolder& folder, const std::string& name) {
  const std::filesystem::path path = folder.artifact() / name;
  std::error_code error;
  if (!is_plain_name(name) ||
      !std::filesystem::is_regular_file(std::filesystem::symlink_status(path, error))) {
    return absl::InternalError(
        absl::StrCat("the engine announced artifact file '", name, "', which is no plain file"));
  }
  const std::string key = absl::StrCat("jobs/", claimed_.lease.job_id, "/attempts/",
                                       claimed_.lease.attempt, "/artifact/", name);
  absl::StatusOr<ArtifactStore::Stored> stored = absl::UnavailableError("");
  for (int i = 0; i < kStoreTries && absl::IsUnavailable(stored.status()); ++i) {
    if (i > 0) {
      control_.wait_until(AttemptControl::Clock::now() + std::chrono::seconds(i),
                          [](const AttemptControl::Signals& now) { return now.lost; });
    }
    stored = context_.artifacts.put(key, path);
  }
  if (!stored.ok()) {
    return stored.status();
  }
  return StoredFile{
      .name = name, .key = key, .size_bytes = stored->size_bytes, .sha256 = stored->sha256};
}

AttemptOutcome Attempt::settle_failed(const v1::Failure& failure) {
  failure_class_ = failure.failure_class();
  log_warning(absl::StrCat("attempt failed, ", failure_class_name(failure_class_), ": ",
                           failure.code(), ": ", failure.message()),
              log_fields_);
  return outcome_of(
      retry_write(control_,
                  [&] { return context_.jobs.settle_failed(claimed_.lease, failure).status(); }),
      AttemptOutcome::kFailed);
}

AttemptOutcome Attempt::settle_cancelled() {
  return outcome_of(
      retry_write(control_, [&] { return context_.jobs.settle_cancelled(claimed_.lease); }),
      AttemptOutcome::kCancelled);
}

AttemptOutcome Attempt::release(AttemptOutcome outcome) {
  return outcome_of(retry_write(control_, [&] { return context_.jobs.release(claimed_.lease); }),
                    outcome);
}

// Out of contact for a whole lease. If it comes back soon the work so far is kept; if not, the job
// is rescued, and others may need this worker.
void Attempt::limit_retries_to_a_lease() {
  control_.shut_down(AttemptControl::Clock::now() + options_.lease);
}

AttemptOutcome Attempt::give_back_expired() {
  limit_retries_to_a_lease();
  return release(AttemptOutcome::kLeaseLost);
}

AttemptOutcome Attempt::outcome_of(const absl::Status& settled, AttemptOutcome outcome) {
  if (settled.ok()) {
    return outcome;
  }
  log_warning(absl::StrCat("job not settled by this worker: ", settled.ToString()), log_fields_);
  return AttemptOutcome::kLeaseLost;
}

}  // namespace qaas
