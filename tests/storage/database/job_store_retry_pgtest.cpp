// What becomes of a job after a failed attempt. The rule itself is retry_policy_test.cpp's.
#include "tests/storage/database/job_fixture.h"

namespace qaas {
namespace {

using namespace testing;  // NOLINT: the fixtures' namespace
using ::testing::HasSubstr;

class JobStoreRetryTest : public JobStoreTest {
 protected:
  v1::JobState fail_attempt(v1::FailureClass failure_class, const std::string& position = "") {
    const auto state = store().settle_failed(claim().lease, failure(failure_class, position));
    EXPECT_THAT(state, IsOk());
    return state.value_or(v1::JOB_STATE_UNSPECIFIED);
  }
};

TEST_F(JobStoreRetryTest, FailedAttemptIsQueuedAgainAndSaysWhy) {
  const std::string id = submit();
  EXPECT_EQ(fail_attempt(v1::FAILURE_CLASS_RESOURCE), v1::JOB_STATE_QUEUED);
  const v1::Job job = get(id);
  EXPECT_EQ(job.failures(), 1);
  EXPECT_EQ(job.failure().message(), "it broke");
  EXPECT_FALSE(job.has_end_time());
  const v1::StateChanged event = events(id).back().state_changed();
  EXPECT_EQ(event.state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(event.failure().message(), "it broke");
  EXPECT_THAT(event.reason(), HasSubstr("will be retried"));

  EXPECT_FALSE(claim().job.has_failure()) << "a running job has not failed yet";
}

TEST_F(JobStoreRetryTest, JobIsNotClaimedBeforeItsBackoffIsOver) {
  JobStore patient(database(),
                   {.first_backoff = std::chrono::hours{1}, .max_backoff = std::chrono::hours{2}});
  submit();
  ASSERT_THAT(patient.settle_failed(claim().lease, failure(v1::FAILURE_CLASS_RESOURCE)), IsOk());
  QAAS_ASSERT_OK_AND_ASSIGN(const auto early, store().claim("worker-1"));
  EXPECT_FALSE(early.has_value());
  EXPECT_EQ(execute("SELECT round(extract(epoch FROM due_time - update_time)) FROM job")[0][0]
                .as<double>(),
            3600);
  QAAS_ASSERT_OK_AND_ASSIGN(const auto statistics, store().statistics());
  EXPECT_EQ(statistics.oldest_queued_seconds, 0) << "it waits for itself, not for a worker";

  execute("UPDATE job SET due_time = clock_timestamp()");
  EXPECT_EQ(claim().lease.attempt, 2);
}

TEST_F(JobStoreRetryTest, CallersFaultFailsForGood) {
  const std::string id = submit();
  EXPECT_EQ(fail_attempt(v1::FAILURE_CLASS_CALLER), v1::JOB_STATE_FAILED);
  const v1::Job job = get(id);
  EXPECT_EQ(job.state(), v1::JOB_STATE_FAILED);
  EXPECT_TRUE(job.has_end_time());
  EXPECT_EQ(job.failure().failure_class(), v1::FAILURE_CLASS_CALLER);
}

TEST_F(JobStoreRetryTest, FailuresAreBounded) {
  submit();
  EXPECT_EQ(fail_attempt(v1::FAILURE_CLASS_INFRASTRUCTURE), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(fail_attempt(v1::FAILURE_CLASS_RESOURCE), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(fail_attempt(v1::FAILURE_CLASS_INFRASTRUCTURE), v1::JOB_STATE_FAILED);
}

TEST_F(JobStoreRetryTest, SecondInternalFailureIsFinalWhateverLiesBetween) {
  submit();
  EXPECT_EQ(fail_attempt(v1::FAILURE_CLASS_INTERNAL), v1::JOB_STATE_QUEUED);
  ASSERT_THAT(store().release(claim().lease), IsOk());
  EXPECT_EQ(fail_attempt(v1::FAILURE_CLASS_INTERNAL), v1::JOB_STATE_FAILED);
}

TEST_F(JobStoreRetryTest, SamePositionTwiceIsFinal) {
  submit();
  EXPECT_EQ(fail_attempt(v1::FAILURE_CLASS_RESOURCE, "block 3 step 17"), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(fail_attempt(v1::FAILURE_CLASS_RESOURCE, "block 3 step 17"), v1::JOB_STATE_FAILED);
}

TEST_F(JobStoreRetryTest, FailureTextMayHoldAnyBytes) {
  const std::string id = submit();
  v1::Failure bad = failure(v1::FAILURE_CLASS_INTERNAL);
  bad.set_message(std::string("cut \xE2\x82 and \0 nul", 15));
  ASSERT_THAT(store().settle_failed(claim().lease, bad), IsOk());
  EXPECT_EQ(get(id).failure().message(), "cut ?? and ? nu");
}

TEST_F(JobStoreRetryTest, FailedJobKeepsItsCheckpoints) {
  const std::string id = submit();
  const Lease lease = claim().lease;
  ASSERT_THAT(store().add_checkpoint(lease, {"b0", "k", 1, "s"}, {}), IsOk());
  ASSERT_THAT(store().settle_failed(lease, failure(v1::FAILURE_CLASS_CALLER)), IsOk());
  EXPECT_EQ(execute("SELECT count(*) FROM job_checkpoint")[0][0].as<int>(), 1)
      << "it may be retried by hand";
}

}  // namespace
}  // namespace qaas
