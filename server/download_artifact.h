#pragma once

#include <atomic>
#include <memory>
#include <string>

#include <grpcpp/support/server_callback.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>

#include "qaas/v1/artifact_service.grpc.pb.h"
#include "server/bounded_pool.h"
#include "server/rpc.h"
#include "storage/artifacts/artifact_store.h"
#include "storage/database/job_store.h"

namespace qaas {

/// Limits how many downloads run at once, so that each may hold one task in the disk pool's queue
/// and none is refused halfway. Thread-safe.
class DownloadSlots {
 public:
  DownloadSlots(int slots, prometheus::Gauge& open) : slots_(slots), open_(open) {}
  bool take();
  void give_back();

 private:
  const int slots_;
  std::atomic<int> taken_{0};
  prometheus::Gauge& open_;
};

/// What a download works with; all outlive it.
struct DownloadContext {
  JobStore& jobs;
  ArtifactStore& artifacts;
  BoundedPool& sql;
  BoundedPool& disk;
  DownloadSlots& slots;
  prometheus::Counter& bytes;
};

/// One DownloadArtifact stream. Turns between a pool (look the file up; read a chunk) and gRPC
/// (write it): one chunk is in memory, and only whoever has the turn touches the stream. Keeps
/// itself alive until gRPC is done with it.
class DownloadArtifact : public grpc::ServerWriteReactor<v1::DownloadArtifactResponse> {
 public:
  struct Target {
    std::string tenant;
    std::string job_id;
    std::string file;
    int64_t offset = 0;
  };

  /// The reactor to hand to gRPC.
  static grpc::ServerWriteReactor<v1::DownloadArtifactResponse>* start(
      const DownloadContext& context, Target target, RpcRecord record);

  void OnWriteDone(bool ok) override;
  void OnCancel() override { cancelled_ = true; }
  void OnDone() override;

 private:
  DownloadArtifact(const DownloadContext& context, Target target, RpcRecord record)
      : context_(context), target_(std::move(target)), record_(record) {}

  absl::Status find_file();
  void describe();
  void read_chunk();
  void finish(const absl::Status& status);

  const DownloadContext context_;
  const Target target_;
  const RpcRecord record_;
  StoredFile file_;
  int64_t position_ = 0;  // bytes of the file sent or skipped
  v1::DownloadArtifactResponse response_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace qaas
