#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include <absl/status/statusor.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include "clients/cli/errors.h"
#include "qaas/v1/artifact_service.grpc.pb.h"
#include "qaas/v1/model_service.grpc.pb.h"
#include "qaas/v1/quantization_service.grpc.pb.h"

namespace qaas::cli {

/// A channel to one server and the stubs on it. Used by one thread.
class Connection {
 public:
  /// `server` is "host:port". Connects lazily; unary calls take at most `timeout`.
  Connection(const std::string& server, std::chrono::milliseconds timeout);

  v1::QuantizationService::Stub& jobs() { return *jobs_; }
  v1::ModelService::Stub& models() { return *models_; }
  v1::ArtifactService::Stub& artifacts() { return *artifacts_; }

  /// One unary call within the timeout:
  ///   call<v1::Job>(connection.jobs(), &v1::QuantizationService::Stub::GetJob, request)
  template <typename Response, typename Stub, typename Request>
  absl::StatusOr<Response> call(Stub& stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                             Response*),
                                const Request& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout_);
    Response response;
    const absl::Status status = explain(from_grpc((stub.*method)(&context, request, &response)));
    if (!status.ok()) return status;
    return response;
  }

  /// The same Status; kUnavailable says which server and kDeadlineExceeded how long was waited.
  absl::Status explain(const absl::Status& status) const;

  std::chrono::milliseconds timeout() const { return timeout_; }

 private:
  std::string server_;
  std::chrono::milliseconds timeout_;
  std::unique_ptr<v1::QuantizationService::Stub> jobs_;
  std::unique_ptr<v1::ModelService::Stub> models_;
  std::unique_ptr<v1::ArtifactService::Stub> artifacts_;
};

/// Waits between tries of something that is unavailable: 0.25 s, doubling to 5 s.
class Backoff {
 public:
  /// Sleeps for the next wait. False, without sleeping, once `most` waits in a row were made.
  bool wait(int most);
  /// Something worked: begin anew.
  void reset() { waits_ = 0; }

 private:
  int waits_ = 0;
};

}  // namespace qaas::cli
