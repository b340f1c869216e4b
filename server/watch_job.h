#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include <grpcpp/support/server_callback.h>

#include "qaas/v1/quantization_service.grpc.pb.h"
#include "server/event_hub.h"
#include "server/rpc.h"
#include "storage/database/job_store.h"

namespace qaas {

/// One WatchJob stream: a cursor into the job's events.
///
/// At any time one party owns the stream, told by `phase_`: the hub (a load is queued or running),
/// gRPC (a message is being written), or nobody (idle: everything was sent). Only the owner moves
/// on, so no two threads ever write or finish. What happens meanwhile - new events, cancellation,
/// shutdown - is noted in flags, which the owner reads when it hands over. A slow reader keeps
/// gRPC the owner: at most one batch of events waits in memory.
///
/// Keeps itself alive until gRPC is done with it.
class WatchJob : public grpc::ServerWriteReactor<v1::WatchJobResponse>,
                 public EventSubscriber,
                 public std::enable_shared_from_this<WatchJob> {
 public:
  struct Target {
    std::string tenant;
    std::string job_id;
    int64_t after_event = 0;
  };

  /// The reactor to hand to gRPC. `store` and `hub` outlive it.
  static grpc::ServerWriteReactor<v1::WatchJobResponse>* start(JobStore& store, EventHub& hub,
                                                               Target target, RpcRecord record);

  const std::string& job_id() const override { return target_.job_id; }
  void wake() override;
  void load() override;
  void stop() override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  enum class Phase { kLoading, kWriting, kIdle, kFinished };

  WatchJob(JobStore& store, EventHub& hub, Target target, RpcRecord record)
      : store_(store), hub_(hub), target_(std::move(target)), record_(record) {}

  void note(bool WatchJob::*flag);
  absl::Status read_events();
  void write_next();
  void move_on();
  void finish(const absl::Status& status);

  JobStore& store_;
  EventHub& hub_;
  const Target target_;
  const RpcRecord record_;
  std::shared_ptr<WatchJob> self_;

  // Touched by the owner only.
  int64_t cursor_ = 0;              // number of the last event sent
  std::deque<v1::JobEvent> batch_;  // read, not sent yet
  bool batch_was_full_ = false;     // more may be waiting in the store
  bool opened_ = false;             // the job was looked up
  bool settled_ = false;            // the last event was read: end once the batch is sent
  v1::WatchJobResponse response_;

  std::mutex mutex_;
  Phase phase_ = Phase::kLoading;
  bool more_ = false;  // woken while not idle
  bool cancelled_ = false;
  bool stopped_ = false;
};

}  // namespace qaas
