#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <string>

#include <absl/status/status.h>
#include <google/protobuf/message.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "server/bounded_pool.h"
#include "server/server_metrics.h"

/// What every method does alike: refuse unknown fields, leave gRPC's threads at once, respect the
/// deadline, translate the error, count the call.
namespace qaas {

/// One call in the metrics: begins when constructed; finish() counts it, once.
class RpcRecord {
 public:
  /// `method` as in ServerMetrics::rpc_finished; it must outlive the record.
  RpcRecord(ServerMetrics& metrics, const char* method)
      : metrics_(&metrics), method_(method), start_(std::chrono::steady_clock::now()) {}

  void finish(grpc::StatusCode code) const {
    metrics_->rpc_finished(method_, code, std::chrono::steady_clock::now() - start_);
  }

 private:
  ServerMetrics* metrics_;
  const char* method_;
  std::chrono::steady_clock::time_point start_;
};

/// Runs `work` of a unary call on `pool` and finishes the call with its Status; a full pool
/// finishes it with kResourceExhausted, a deadline that passed in the queue with
/// kDeadlineExceeded, both without running `work`. Request and response live until then.
grpc::ServerUnaryReactor* run_unary(grpc::CallbackServerContext* context, RpcRecord record,
                                    const google::protobuf::Message& request, BoundedPool& pool,
                                    std::function<absl::Status()> work);

/// The same for work that never blocks: it runs at once, on gRPC's thread.
grpc::ServerUnaryReactor* run_unary_inline(grpc::CallbackServerContext* context, RpcRecord record,
                                           const google::protobuf::Message& request,
                                           const std::function<absl::Status()>& work);

/// kInvalidArgument if `request` has fields that this build does not know.
absl::Status check_known_fields(const google::protobuf::Message& request);

/// A server stream that ends at once with `status`.
template <typename Response>
class RefusedStream : public grpc::ServerWriteReactor<Response> {
 public:
  RefusedStream(RpcRecord record, const grpc::Status& status) {
    record.finish(status.error_code());
    this->Finish(status);
  }
  void OnDone() override { delete this; }
};

}  // namespace qaas
