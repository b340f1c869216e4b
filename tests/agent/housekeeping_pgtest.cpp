#include "tests/agent/agent_fixture.h"
#include "workers/agent/housekeeping.h"

namespace qaas::testing {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using ::testing::Ge;
using ::testing::UnorderedElementsAre;

TEST(ContactClock, ContactMustLastAWholeLeaseWithoutABreak) {
  ContactClock contact(milliseconds(300));
  const Clock::time_point start = Clock::now();
  const auto at = [&](int time) { return start + milliseconds(time); };
  EXPECT_FALSE(contact.note(at(0), true));
  EXPECT_FALSE(contact.note(at(100), true));
  EXPECT_FALSE(contact.note(at(299), true));
  EXPECT_TRUE(contact.note(at(300), true));
  EXPECT_FALSE(contact.note(at(400), false)) << "the database went away";
  EXPECT_FALSE(contact.note(at(500), true));
  EXPECT_FALSE(contact.note(at(799), true));
  EXPECT_FALSE(contact.note(at(1099), true)) << "this process was stopped for a whole lease";
  EXPECT_FALSE(contact.note(at(1398), true));
  EXPECT_TRUE(contact.note(at(1399), true));
}

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
  EXPECT_TRUE(eventually([&] { return artifacts().attempt_prefixes()->size() < 3; }));
  EXPECT_THAT(*artifacts().attempt_prefixes(),
              UnorderedElementsAre(current, "jobs/of-another-service/attempts/1/"));
}

}  // namespace
}  // namespace qaas::testing
