#pragma once

#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "clients/cli/connection.h"
#include "qaas/v1/artifact_service.pb.h"
#include "qaas/v1/job.pb.h"
#include "qaas/v1/quantization_service.pb.h"

/// Questions that several commands ask. Names may come without their collection.
namespace qaas::cli {

/// Items asked for at once, and pages after which a list is taken as endless.
inline constexpr int kPageSize = 100;
inline constexpr int kMostPages = 1000;

/// SubmitJob, asked again where that can help: a few times while the server is unavailable (safe
/// because of the request id), and within the connection's timeout while the server names a time to
/// come back (a model that is still being scanned, a busy server).
absl::StatusOr<v1::Job> submit_until_answered(Connection& connection,
                                              const v1::SubmitJobRequest& request);
/// Forecast, likewise.
absl::StatusOr<v1::ForecastResponse> forecast_until_answered(Connection& connection,
                                                             const v1::ForecastRequest& request);

absl::StatusOr<v1::Job> fetch_job(Connection& connection, const std::string& job);

/// All artifacts of a job, over all pages. kInternal if the server never stops paging.
absl::StatusOr<std::vector<v1::Artifact>> fetch_artifacts(Connection& connection,
                                                          const std::string& job);

}  // namespace qaas::cli
