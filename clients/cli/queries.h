#pragma once

#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "clients/cli/connection.h"
#include "qaas/v1/artifact_service.pb.h"
#include "qaas/v1/job.pb.h"

/// Questions that several commands ask. Names may come without their collection.
namespace qaas::cli {

absl::StatusOr<v1::Job> fetch_job(Connection& connection, const std::string& job);

/// All artifacts of a job, over all pages. kInternal if the server never stops paging.
absl::StatusOr<std::vector<v1::Artifact>> fetch_artifacts(Connection& connection,
                                                          const std::string& job);

}  // namespace qaas::cli
