#include "workers/agent/event_sender.h"

#include <utility>

#include <absl/strings/str_cat.h>

#include "telemetry/logging.h"
#include "workers/agent/resource_names.h"
#include "workers/agent/retry.h"

namespace qaas {
namespace {

constexpr size_t kMaxBatch = 100;

}  // namespace

EventSender::EventSender(JobStore& jobs, ArtifactStore& artifacts, Lease lease,
                         std::filesystem::path checkpoint_folder, EventSenderOptions options,
                         AttemptControl& control, AgentMetrics& metrics)
    : jobs_(jobs),
      artifacts_(artifacts),
      lease_(std::move(lease)),
      checkpoint_folder_(std::move(checkpoint_folder)),
      options_(options),
      control_(control),
      metrics_(metrics),
      thread_([this] { send_until_finished(); }) {}

EventSender::~EventSender() {
  if (thread_.joinable()) {
    // Left early: the attempt is over for another reason, which the log has.
    control_.shut_down(AttemptControl::Clock::now());
    finish().IgnoreError();
  }
}

void EventSender::push(v1::JobEvent event) {
  const size_t bytes = event.ByteSizeLong();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (queue_.size() >= options_.max_queued_events ||
        queued_bytes_ + bytes > options_.max_queued_bytes) {
      ++dropped_;
      metrics_.events_dropped(1);
      return;
    }
    queued_bytes_ += bytes;
    queue_.push_back(std::move(event));
  }
  changed_.notify_all();
}

void EventSender::push_progress(const v1::Progress& progress) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    progress_ = progress;
  }
  changed_.notify_all();
}

absl::Status EventSender::finish() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    finishing_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) {
    thread_.join();
  }
  return result_;
}

void EventSender::send_until_finished() {
  while (const auto batch = take()) {
    const absl::Status sent = send(*batch);
    if (sent.ok()) {
      continue;
    }
    if (!absl::IsAborted(sent) && !is_passing(sent)) {
      // The database refuses the events themselves: our mistake. Losing them is better than losing
      // the job.
      log_error(absl::StrCat("events dropped: ", sent.ToString()),
                {.job = lease_.job_id, .attempt = lease_.attempt});
      metrics_.events_dropped(batch->events.size());
      continue;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    result_ = sent;
    return;
  }
}

std::optional<EventSender::Batch> EventSender::take() {
  using Clock = AttemptControl::Clock;
  std::unique_lock<std::mutex> lock(mutex_);
  const auto something = [this] { return finishing_ || !queue_.empty(); };
  while (!something() && !(progress_ && Clock::now() >= next_progress_)) {
    if (progress_) {
      changed_.wait_until(lock, next_progress_, something);
    } else {
      changed_.wait(lock);
    }
  }
  if (queue_.empty() && !progress_ && dropped_ == 0) {
    return std::nullopt;
  }
  Batch batch;
  while (!queue_.empty() && batch.events.size() < kMaxBatch) {
    v1::JobEvent& front = queue_.front();
    const bool is_checkpoint = front.has_checkpoint_written();
    if (is_checkpoint && !batch.events.empty()) {
      break;
    }
    queued_bytes_ -= front.ByteSizeLong();
    if (is_checkpoint) {
      batch.checkpoint = std::move(front);
      queue_.pop_front();
      break;
    }
    batch.events.push_back(std::move(front));
    queue_.pop_front();
  }
  if (dropped_ > 0 && queue_.empty() && !batch.checkpoint) {
    v1::JobEvent event;
    event.mutable_warning()->set_message(
        absl::StrCat(std::exchange(dropped_, 0),
                     " events were dropped while the service's database was out of reach"));
    batch.events.push_back(std::move(event));
  }
  if (progress_ && (finishing_ || Clock::now() >= next_progress_)) {
    batch.progress = std::exchange(progress_, std::nullopt);
    next_progress_ = Clock::now() + options_.progress_interval;
  }
  return batch;
}

absl::Status EventSender::send(const Batch& batch) {
  if (!batch.events.empty()) {
    const absl::Status appended =
        retry_write(control_, [&] { return jobs_.append_events(lease_, batch.events); });
    if (!appended.ok()) {
      return appended;
    }
  }
  if (batch.checkpoint) {
    const absl::Status stored = send_checkpoint(batch.checkpoint->checkpoint_written());
    if (!stored.ok()) {
      return stored;
    }
  }
  if (batch.progress) {
    // Not repeated: the next progress says more.
    const absl::Status written = jobs_.set_progress(lease_, *batch.progress);
    if (absl::IsAborted(written)) {
      control_.lose();
      return written;
    }
  }
  return absl::OkStatus();
}

absl::Status EventSender::send_checkpoint(const v1::CheckpointWritten& checkpoint) {
  const std::string& file = checkpoint.file();
  if (!is_plain_name(file)) {
    return warn(absl::StrCat("a checkpoint was not kept: '", file, "' is no file name"));
  }
  const std::string key = checkpoint_key(file);
  const auto stored = artifacts_.put(key, checkpoint_folder_ / file);
  if (!stored.ok()) {
    // The job can go on without it; if the store stays in trouble, publishing will say so.
    log_warning(absl::StrCat("checkpoint not kept: ", stored.status().ToString()),
                {.job = lease_.job_id, .attempt = lease_.attempt});
    return warn(absl::StrCat("checkpoint '", file,
                             "' was not kept: ", absl::StatusCodeToString(stored.status().code())));
  }
  const StoredFile row{
      .name = file, .key = key, .size_bytes = stored->size_bytes, .sha256 = stored->sha256};
  return retry_write(control_, [&] { return jobs_.add_checkpoint(lease_, row, checkpoint); });
}

absl::Status EventSender::warn(const std::string& message) {
  v1::JobEvent event;
  event.mutable_warning()->set_message(message);
  return retry_write(control_, [&] { return jobs_.append_events(lease_, {event}); });
}

std::string EventSender::checkpoint_key(const std::string& file) {
  const std::string first =
      absl::StrCat("jobs/", lease_.job_id, "/attempts/", lease_.attempt, "/checkpoints/", file);
  std::string key = first;
  for (int copy = 2; !used_keys_.insert(key).second; ++copy) {
    key = absl::StrCat(first, ".", copy);
  }
  return key;
}

}  // namespace qaas
