#include "clients/cli/queries.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "clients/cli/names.h"

namespace qaas::cli {
namespace {

template <typename Call>
auto until_answered(std::chrono::milliseconds timeout, const Call& call) {
  constexpr int kMostRetries = 4;
  constexpr std::chrono::milliseconds kShortestWait{100};
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  Backoff backoff;
  while (true) {
    auto response = call();
    const auto delay = retry_delay(response.status());
    if (delay.has_value()) {
      const auto wait = std::max(*delay, kShortestWait);
      if (std::chrono::steady_clock::now() + wait > deadline) return response;
      std::this_thread::sleep_for(wait);
    } else if (!absl::IsUnavailable(response.status()) || !backoff.wait(kMostRetries)) {
      return response;
    }
  }
}

}  // namespace

absl::StatusOr<v1::Job> submit_until_answered(Connection& connection,
                                              const v1::SubmitJobRequest& request) {
  return until_answered(connection.timeout(), [&] {
    return connection.call<v1::Job>(connection.jobs(), &v1::QuantizationService::Stub::SubmitJob,
                                    request);
  });
}

absl::StatusOr<v1::ForecastResponse> forecast_until_answered(Connection& connection,
                                                             const v1::ForecastRequest& request) {
  return until_answered(connection.timeout(), [&] {
    return connection.call<v1::ForecastResponse>(connection.jobs(),
                                                 &v1::QuantizationService::Stub::Forecast, request);
  });
}

absl::StatusOr<v1::Job> fetch_job(Connection& connection, const std::string& job) {
  v1::GetJobRequest request;
  request.set_name(with_collection("jobs", job));
  return connection.call<v1::Job>(connection.jobs(), &v1::QuantizationService::Stub::GetJob,
                                  request);
}

absl::StatusOr<std::vector<v1::Artifact>> fetch_artifacts(Connection& connection,
                                                          const std::string& job) {
  v1::ListArtifactsRequest request;
  request.set_parent(with_collection("jobs", job));
  request.set_page_size(kPageSize);
  std::vector<v1::Artifact> artifacts;
  for (int page = 0; page < kMostPages; ++page) {
    const absl::StatusOr<v1::ListArtifactsResponse> response =
        connection.call<v1::ListArtifactsResponse>(
            connection.artifacts(), &v1::ArtifactService::Stub::ListArtifacts, request);
    if (!response.ok()) return response.status();
    artifacts.insert(artifacts.end(), response->artifacts().begin(), response->artifacts().end());
    if (response->next_page_token().empty()) return artifacts;
    request.set_page_token(response->next_page_token());
  }
  return absl::InternalError("the server's list of artifacts does not end");
}

}  // namespace qaas::cli
