#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "google/rpc/error_details.pb.h"
#include "qaas/v1/artifact_service.grpc.pb.h"
#include "qaas/v1/model_service.grpc.pb.h"
#include "qaas/v1/quantization_service.grpc.pb.h"
#include "server/server.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace qaas::testing {

/// The google.rpc details of an error as a client sees them; empty ones where there are none.
struct ErrorDetails {
  google::rpc::ErrorInfo error_info;
  google::rpc::BadRequest bad_request;
  google::rpc::RetryInfo retry;
};
ErrorDetails details_of(const grpc::Status& status);
std::vector<std::string> violated_fields(const grpc::Status& status);

/// Has this gRPC code, and an ErrorInfo of domain "qaas" with this reason.
MATCHER_P2(IsRefusal, code, reason, "") {
  const ErrorDetails details = details_of(arg);
  *result_listener << "which is code " << arg.error_code() << ", reason "
                   << details.error_info.reason() << ": " << arg.error_message();
  return arg.error_code() == code && details.error_info.reason() == reason &&
         details.error_info.domain() == "qaas";
}

/// A context with a deadline, so that no test hangs.
std::unique_ptr<grpc::ClientContext> call_context();

/// Calls `done` until it returns true; fails the test when that takes half a minute. For what only
/// a call can tell.
void wait_until(const std::function<bool()>& done, const char* what);

/// Writes a Llama folder of one block that the service takes: hidden 64, intermediate 128.
void write_tiny_model(const std::filesystem::path& folder);

/// The answer of the metrics endpoint.
std::string scrape(int port);

/// A real server on real ports over a real database, with the model "models/tiny" (ready), the
/// dataset "datasets/text" and an empty artifact store.
class ServerTest : public PostgresTest {
 protected:
  void SetUp() override;

  /// Settings of the server, for tests that start their own.
  ServerOptions options() const;
  /// Ends when models/tiny is ready.
  void restart(const ServerOptions& options);
  void stop_server() { server_.reset(); }

  Server& server() { return *server_; }
  std::shared_ptr<grpc::Channel> channel() const { return channel_; }
  v1::QuantizationService::Stub& jobs() { return *jobs_; }
  v1::ModelService::Stub& models() { return *models_; }
  v1::ArtifactService::Stub& artifacts() { return *artifacts_; }
  /// The store behind the server, for a worker's steps.
  JobStore& store() { return *store_; }

  std::filesystem::path model_root() const { return folder_ / "models"; }
  std::filesystem::path dataset_root() const { return folder_ / "datasets"; }
  std::filesystem::path artifact_root() const { return folder_ / "artifacts"; }

  static v1::JobSpec round_to_nearest();
  /// Submits that spec and returns the job's name.
  std::string submit();
  v1::Job get(const std::string& name);
  grpc::Status get_model(const std::string& name, v1::Model& model);
  void wait_for_model(const std::string& name, v1::Model::State state);

  /// The job's only worker: claims it. It must be the next one.
  Lease claim(const std::string& name);

 private:
  TemporaryFolder folder_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::QuantizationService::Stub> jobs_;
  std::unique_ptr<v1::ModelService::Stub> models_;
  std::unique_ptr<v1::ArtifactService::Stub> artifacts_;
};

}  // namespace qaas::testing
