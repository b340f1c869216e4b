#include "clients/cli/connection.h"

#include <algorithm>
#include <thread>

#include <absl/strings/str_cat.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include "clients/cli/text.h"

namespace qaas::cli {

Connection::Connection(const std::string& server, std::chrono::milliseconds timeout)
    : server_(server), timeout_(timeout) {
  grpc::ChannelArguments arguments;
  // A server that restarts should be found again in seconds, not after gRPC's default two minutes.
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  // Proxy settings of the environment are for the web, not for a server named by host and port.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  const std::shared_ptr<grpc::Channel> channel =
      grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
  jobs_ = v1::QuantizationService::NewStub(channel);
  models_ = v1::ModelService::NewStub(channel);
  artifacts_ = v1::ArtifactService::NewStub(channel);
}

absl::Status Connection::explain(const absl::Status& status) const {
  std::string message(status.message());
  if (absl::IsUnavailable(status)) {
    message = absl::StrCat("server ", server_, ": ", message);
  } else if (absl::IsDeadlineExceeded(status)) {
    message = absl::StrCat("server ", server_, " did not answer within ",
                           format_duration(timeout_.count() / 1000.0));
  } else {
    return status;
  }
  absl::Status explained(status.code(), message);
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    explained.SetPayload(url, payload);
  });
  return explained;
}

bool Backoff::wait(int most) {
  if (waits_ >= most) return false;
  const int milliseconds = std::min(250 << std::min(waits_, 10), 5000);
  ++waits_;
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  return true;
}

}  // namespace qaas::cli
