#include "server/watch_job.h"

#include <utility>
#include <vector>

#include "server/errors.h"

namespace qaas {
namespace {

constexpr int kBatch = 64;

bool is_terminal(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

}  // namespace

grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob::start(JobStore& store, EventHub& hub,
                                                                Target target, RpcRecord record) {
  const std::shared_ptr<WatchJob> stream(new WatchJob(store, hub, std::move(target), record));
  const absl::Status admitted = hub.add(stream);
  if (!admitted.ok()) {
    return new RefusedStream<v1::WatchJobResponse>(record, to_grpc_status(admitted));
  }
  stream->cursor_ = stream->target_.after_event;
  stream->self_ = stream;
  hub.request_load(stream);
  return stream.get();
}

void WatchJob::wake() {
  {
    const std::lock_guard lock(mutex_);
    if (phase_ != Phase::kIdle) {
      more_ = true;
      return;
    }
    phase_ = Phase::kLoading;
  }
  hub_.request_load(shared_from_this());
}

void WatchJob::stop() { note(&WatchJob::stopped_); }

void WatchJob::OnCancel() { note(&WatchJob::cancelled_); }

// Sets a flag that ends the stream; ends it at once when nobody else owns it.
void WatchJob::note(bool WatchJob::*flag) {
  {
    const std::lock_guard lock(mutex_);
    this->*flag = true;
    if (phase_ != Phase::kIdle) return;
    phase_ = Phase::kLoading;  // ours for the moment
  }
  move_on();
}

absl::Status WatchJob::read_events() {
  if (!opened_) {
    const absl::StatusOr<v1::Job> job = store_.get(target_.tenant, target_.job_id);
    if (!job.ok()) return job_error(job.status());
    opened_ = true;
    // A caller that has seen the last event of a settled job already must not wait for another.
    settled_ = is_terminal(job->state()) && job->last_event() <= cursor_;
    if (settled_) return absl::OkStatus();
  }
  absl::StatusOr<std::vector<v1::JobEvent>> events =
      store_.events_after(target_.job_id, cursor_, kBatch);
  if (!events.ok()) return events.status();
  batch_was_full_ = events->size() == kBatch;
  batch_.assign(std::make_move_iterator(events->begin()), std::make_move_iterator(events->end()));
  return absl::OkStatus();
}

void WatchJob::load() {
  {
    const std::lock_guard lock(mutex_);
    more_ = false;  // what was told before this read is covered by it
  }
  batch_was_full_ = false;
  const absl::Status status = read_events();
  if (!status.ok()) {
    finish(status);
    return;
  }
  move_on();
}

// The owner's one decision: end, write, load again, or rest.
void WatchJob::move_on() {
  absl::Status end;
  bool rest = false;
  {
    const std::lock_guard lock(mutex_);
    if (cancelled_) {
      end = absl::CancelledError("the caller went away");
    } else if (stopped_) {
      end = refusal(absl::StatusCode::kUnavailable, "SHUTTING_DOWN",
                    "the server is shutting down; watch again after the last event received");
    } else if (!settled_ && batch_.empty() && !batch_was_full_ && !more_) {
      phase_ = Phase::kIdle;
      rest = true;
    } else {
      phase_ = batch_.empty() ? Phase::kLoading : Phase::kWriting;
    }
  }
  if (rest) return;
  if (!end.ok()) {
    finish(end);
  } else if (!batch_.empty()) {
    write_next();
  } else if (settled_) {
    finish(absl::OkStatus());
  } else {
    hub_.request_load(shared_from_this());
  }
}

void WatchJob::write_next() {
  *response_.mutable_event() = std::move(batch_.front());
  batch_.pop_front();
  cursor_ = response_.event().number();
  if (response_.event().has_state_changed() &&
      is_terminal(response_.event().state_changed().state())) {
    settled_ = true;
    batch_.clear();
  }
  StartWrite(&response_);
}

void WatchJob::OnWriteDone(bool ok) {
  if (!ok) {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
  }
  move_on();
}

void WatchJob::finish(const absl::Status& status) {
  {
    const std::lock_guard lock(mutex_);
    phase_ = Phase::kFinished;
  }
  hub_.remove(*this);
  const grpc::Status sent = to_grpc_status(status);
  record_.finish(sent.error_code());
  Finish(sent);
}

void WatchJob::OnDone() {
  const std::shared_ptr<WatchJob> last = std::move(self_);  // may destroy this at the end
}

}  // namespace qaas
