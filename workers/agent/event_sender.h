#pragma once

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "qaas/v1/event.pb.h"
#include "storage/artifacts/artifact_store.h"
#include "storage/database/job_store.h"
#include "workers/agent/agent_metrics.h"
#include "workers/agent/attempt_control.h"

namespace qaas {

/// Bounds of an EventSender's queue.
struct EventSenderOptions {
  /// Events held while the database is away; later ones are dropped, counted, and the job is told.
  size_t max_queued_events = 10000;
  /// Their bytes, likewise.
  size_t max_queued_bytes = 16 << 20;
  /// Least time between two writes of progress.
  std::chrono::milliseconds progress_interval{1000};
};

/// Carries one attempt's events to the database on a thread of its own, in order, so that whoever
/// reads the engine's pipe never waits for the database. Progress is reduced to the latest. A
/// checkpoint is copied into the artifact store before its row is written. While the database is
/// away it tries again; when the lease turns out to be lost it tells `control` and drops
/// everything. An append whose commit is in doubt is repeated, so a watcher may see an event twice,
/// never a gap.
class EventSender {
 public:
  /// `checkpoint_folder`: where the files named by CheckpointWritten lie.
  EventSender(JobStore& jobs, ArtifactStore& artifacts, Lease lease,
              std::filesystem::path checkpoint_folder, EventSenderOptions options,
              AttemptControl& control, AgentMetrics& metrics);
  ~EventSender();

  /// Queues an event; `number` and `time` are left to the database. Does not block.
  void push(v1::JobEvent event);
  /// Replaces the progress not yet written. Does not block.
  void push_progress(const v1::Progress& progress);

  /// Sends what is queued and ends the thread; nothing may be pushed afterwards. kAborted when the
  /// lease is lost, another error when `control` said to give up first.
  absl::Status finish();

 private:
  struct Batch {
    std::vector<v1::JobEvent> events;        ///< no checkpoint among them, or
    std::optional<v1::JobEvent> checkpoint;  ///< a checkpoint alone
    std::optional<v1::Progress> progress;
  };

  void send_until_finished();
  /// Waits for something to send; nullopt when finished and empty.
  std::optional<Batch> take();
  absl::Status send(const Batch& batch);
  absl::Status send_checkpoint(const v1::CheckpointWritten& checkpoint);
  absl::Status warn(const std::string& message);
  /// A key no file of this attempt has used: an engine may write one file name several times.
  std::string checkpoint_key(const std::string& file);

  JobStore& jobs_;
  ArtifactStore& artifacts_;
  const Lease lease_;
  const std::filesystem::path checkpoint_folder_;
  const EventSenderOptions options_;
  AttemptControl& control_;
  AgentMetrics& metrics_;
  std::set<std::string> used_keys_;  // of the sending thread
  AttemptControl::Clock::time_point next_progress_{};

  std::mutex mutex_;  // guards what follows; never held during a database call
  std::condition_variable changed_;
  std::deque<v1::JobEvent> queue_;
  size_t queued_bytes_ = 0;
  size_t dropped_ = 0;
  std::optional<v1::Progress> progress_;
  bool finishing_ = false;
  absl::Status result_;

  std::thread thread_;
};

}  // namespace qaas
