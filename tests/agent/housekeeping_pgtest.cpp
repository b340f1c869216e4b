#include "tests/agent/agent_fixture.h"
#include "workers/agent/housekeeping.h"

namespace qaas::testing {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using ::testing::Ge;
using ::testing::UnorderedElementsAre;

class HousekeepingTest : public AgentFixture {
 protected:
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  AgentMetrics metrics_{registry_};
};

TEST_F(HousekeepingTest, AJobOfADeadWorkerIsRescuedAfterAWholeLeaseOfContact) {
  const std::string job = submit("");
  ASSERT_THAT(store().claim("dead"), IsOk());
  expire_leases();
  const auto start = Clock::now();
  const milliseconds lease(300);
  const Housekeeping housekeeping(database(), store(), artifacts(), metrics_, {.lease = lease});
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_QUEUED));
  EXPECT_THAT(Clock::now() - start, Ge(lease));
  EXPECT_EQ(get(job).failures(), 1);
}

TEST_F(HousekeepingTest, AJobWhoseLeaseHoldsIsLeftAlone) {
  const std::string dead = submit("");
  ASSERT_THAT(store().claim("dead"), IsOk());
  expire_leases();
  const std::string held = submit("");
  ASSERT_THAT(store().claim("alive"), IsOk());
  const Housekeeping housekeeping(database(), store(), artifacts(), metrics_,
                                  {.lease = milliseconds(60)});
  ASSERT_TRUE(reaches(dead, v1::JOB_STATE_QUEUED));
  EXPECT_EQ(get(held).state(), v1::JOB_STATE_RUNNING);
}

TEST_F(HousekeepingTest, FilesOfOverAttemptsThatNoRowNamesAreRemoved) {
  write_file(folder() / "file", "bytes");
  const std::string job = submit("");
  ASSERT_THAT(store().claim("dead"), IsOk());
  expire_leases();
  ASSERT_THAT(store().rescue_expired(), IsOk());
  QAAS_ASSERT_OK_AND_ASSIGN(const auto second, store().claim("alive"));
  ASSERT_EQ(second->lease.attempt, 2);
  const std::string current = "jobs/" + job + "/attempts/2/";
  for (const std::string& prefix : {"jobs/" + job + "/attempts/1/", current,
                                    std::string("jobs/of-another-service/attempts/1/")}) {
    ASSERT_THAT(artifacts().put(prefix + "artifact/x", folder() / "file"), IsOk());
  }
  const Housekeeping housekeeping(database(), store(), artifacts(), metrics_,
                                  {.lease = milliseconds(60)});
  EXPECT_TRUE(eventually([&] { return artifacts().attempt_prefixes()->size() == 4; }));
  EXPECT_THAT(
      *artifacts().attempt_prefixes(),
      UnorderedElementsAre(current, current + "artifact/", "jobs/of-another-service/attempts/1/",
                           "jobs/of-another-service/attempts/1/artifact/"));
}

TEST_F(HousekeepingTest, CheckpointsOfASucceededAttemptAreRemovedAndItsArtifactStays) {
  write_file(folder() / "file", "bytes");
  submit("");
  QAAS_ASSERT_OK_AND_ASSIGN(const auto claimed, store().claim("alive"));
  const Lease& lease = claimed->lease;
  const std::string prefix = "jobs/" + lease.job_id + "/attempts/1/";
  for (const char* key : {"artifact/x", "checkpoints/b0"}) {
    ASSERT_THAT(artifacts().put(prefix + key, folder() / "file"), IsOk());
  }
  ASSERT_THAT(store().add_checkpoint(lease, {"b0", prefix + "checkpoints/b0", 5, "s"}, {}), IsOk());
  ASSERT_THAT(store().settle_succeeded(lease, {{"x", prefix + "artifact/x", 5, "s"}}, {}), IsOk());
  const Housekeeping housekeeping(database(), store(), artifacts(), metrics_,
                                  {.lease = milliseconds(60)});
  EXPECT_TRUE(eventually([&] { return artifacts().attempt_prefixes()->size() < 3; }));
  EXPECT_THAT(*artifacts().attempt_prefixes(), UnorderedElementsAre(prefix, prefix + "artifact/"));
}

}  // namespace
}  // namespace qaas::testing
