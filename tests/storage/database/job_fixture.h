#pragma once

#include <memory>
#include <string>

#include "storage/database/job_store.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/status_matchers.h"

namespace qaas::testing {

/// A test of the job store: jobs to submit, and the steps most tests begin with. Failed attempts
/// are due again at once, unless a test asks for another store.
class JobStoreTest : public PostgresTest {
 protected:
  void SetUp() override {
    PostgresTest::SetUp();
    if (HasFatalFailure()) return;
    store_ = std::make_unique<JobStore>(database(), JobStoreOptions{.first_backoff = kNoBackoff});
  }

  JobStore& store() { return *store_; }

  static v1::Job a_job(const std::string& request_id = "") {
    v1::Job job;
    job.set_request_id(request_id);
    job.mutable_spec()->set_model("models/tiny");
    job.mutable_spec()->set_seed(7);
    job.mutable_forecast()->mutable_quantized()->set_error(0.125);
    job.set_model_digest("d1");
    return job;
  }

  /// Submits a job and returns its id.
  std::string submit(const std::string& tenant = kDefaultTenant) {
    const absl::StatusOr<v1::Job> job = store().submit(tenant, a_job(), "");
    EXPECT_THAT(job, IsOk());
    return job.ok() ? id_of(*job) : "";
  }

  /// Claims a job that must be there.
  ClaimedJob claim(const std::string& worker = "worker-1") {
    absl::StatusOr<std::optional<ClaimedJob>> claimed = store().claim(worker);
    EXPECT_THAT(claimed, IsOk());
    EXPECT_TRUE(claimed.ok() && claimed->has_value()) << "no job to claim";
    return claimed.ok() && claimed->has_value() ? **claimed : ClaimedJob{};
  }

  v1::Job get(const std::string& job_id) {
    const absl::StatusOr<v1::Job> job = store().get(kDefaultTenant, job_id);
    EXPECT_THAT(job, IsOk());
    return job.value_or(v1::Job());
  }

  std::vector<v1::JobEvent> events(const std::string& job_id) {
    const auto events = store().events_after(job_id, 0, 10000);
    EXPECT_THAT(events, IsOk());
    return events.value_or(std::vector<v1::JobEvent>());
  }

  static std::string id_of(const v1::Job& job) { return job.name().substr(sizeof("jobs/") - 1); }

  static v1::Failure failure(v1::FailureClass failure_class, const std::string& position = "") {
    v1::Failure failure;
    failure.set_failure_class(failure_class);
    failure.set_message("it broke");
    failure.set_position(position);
    return failure;
  }

  static constexpr std::chrono::milliseconds kNoBackoff{0};

 private:
  std::unique_ptr<JobStore> store_;
};

}  // namespace qaas::testing
