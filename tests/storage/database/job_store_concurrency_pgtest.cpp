// Many workers and callers at once, and many jobs.
#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include <absl/strings/str_cat.h>

#include "tests/storage/database/job_fixture.h"

namespace qaas {
namespace {

using namespace testing;  // NOLINT: the fixtures' namespace
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class JobStoreConcurrencyTest : public JobStoreTest {
 protected:
  static void in_threads(int count, const std::function<void(int)>& body) {
    std::vector<std::thread> threads;
    threads.reserve(count);
    for (int i = 0; i < count; ++i) threads.emplace_back(body, i);
    for (std::thread& thread : threads) thread.join();
  }
};

TEST_F(JobStoreConcurrencyTest, WorkersNeverShareAJob) {
  constexpr int kJobs = 60;
  for (int i = 0; i < kJobs; ++i) submit();
  std::mutex mutex;
  std::vector<std::string> claimed_ids;
  in_threads(4, [&](int worker) {
    while (true) {
      const auto claimed = store().claim(absl::StrCat("worker-", worker));
      ASSERT_THAT(claimed, IsOk());
      if (!claimed->has_value()) return;
      const std::lock_guard lock(mutex);
      claimed_ids.push_back((*claimed)->lease.job_id);
    }
  });
  EXPECT_THAT(claimed_ids, SizeIs(kJobs));
  EXPECT_THAT(std::set<std::string>(claimed_ids.begin(), claimed_ids.end()), SizeIs(kJobs));
  EXPECT_EQ(execute("SELECT count(DISTINCT lease_token) FROM job")[0][0].as<int>(), kJobs);
}

TEST_F(JobStoreConcurrencyTest, DuplicateSubmitsMakeOneJob) {
  std::mutex mutex;
  std::set<std::string> names;
  in_threads(8, [&](int) {
    const auto job = store().submit(kDefaultTenant, a_job("same"), "body");
    ASSERT_THAT(job, IsOk());
    const std::lock_guard lock(mutex);
    names.insert(job->name());
  });
  EXPECT_THAT(names, SizeIs(1));
  EXPECT_EQ(execute("SELECT count(*) FROM job")[0][0].as<int>(), 1);
}

TEST_F(JobStoreConcurrencyTest, RequestIdStandsForOneBodyPerTenant) {
  execute("INSERT INTO tenant (id) VALUES ('other')");
  QAAS_ASSERT_OK_AND_ASSIGN(const v1::Job job, store().submit(kDefaultTenant, a_job("r"), "one"));
  EXPECT_THAT(store().submit(kDefaultTenant, a_job("r"), "two"),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("request_id 'r'")));
  QAAS_ASSERT_OK_AND_ASSIGN(const v1::Job theirs, store().submit("other", a_job("r"), "two"));
  EXPECT_NE(theirs.name(), job.name());
}

TEST_F(JobStoreConcurrencyTest, EmptyRequestIdsAreNotTheSame) { EXPECT_NE(submit(), submit()); }

TEST_F(JobStoreConcurrencyTest, EventNumbersHaveNoGapsAndTimesDoNotGoBack) {
  const std::string id = submit();
  const Lease lease = claim().lease;
  v1::JobEvent event;
  event.mutable_warning()->set_message("w");
  in_threads(4, [&](int thread) {
    for (int i = 0; i < 20; ++i) {
      EXPECT_THAT(store().append_events(lease, {event, event, event}), IsOk());
      if (thread != 0) continue;
      EXPECT_THAT(store().add_checkpoint(lease, {"b", "k", i, "s"}, {}), IsOk());
    }
  });
  const std::vector<v1::JobEvent> seen = events(id);
  ASSERT_THAT(seen, SizeIs(2 + 4 * 20 * 3 + 20));
  for (size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].number(), static_cast<int64_t>(i) + 1);
    if (i == 0) continue;
    EXPECT_LE(std::pair(seen[i - 1].time().seconds(), seen[i - 1].time().nanos()),
              std::pair(seen[i].time().seconds(), seen[i].time().nanos()));
  }
  EXPECT_EQ(get(id).last_event(), static_cast<int64_t>(seen.size()));
}

TEST_F(JobStoreConcurrencyTest, PagesStayRightWhileJobsArrive) {
  std::vector<std::string> expected;
  for (int i = 0; i < 11; ++i) expected.insert(expected.begin(), submit());
  std::vector<std::string> seen;
  std::string position;
  do {
    QAAS_ASSERT_OK_AND_ASSIGN(const JobStore::Page page, store().list(kDefaultTenant, 4, position));
    for (const v1::Job& job : page.jobs) seen.push_back(id_of(job));
    position = page.next;
    submit();
  } while (!position.empty());
  EXPECT_THAT(seen, ElementsAreArray(expected));
}

TEST_F(JobStoreConcurrencyTest, PagesSplitJobsOfTheSameMoment) {
  for (int i = 0; i < 6; ++i) submit();
  execute("UPDATE job SET create_time = '2026-01-02 03:04:05.678901+00'");
  std::set<std::string> seen;
  std::string position;
  for (int pages = 1; pages <= 3; ++pages) {
    QAAS_ASSERT_OK_AND_ASSIGN(const JobStore::Page page, store().list(kDefaultTenant, 2, position));
    EXPECT_THAT(page.jobs, SizeIs(2));
    for (const v1::Job& job : page.jobs) seen.insert(job.name());
    position = page.next;
    EXPECT_EQ(position.empty(), pages == 3) << "a last page that is full says so";
  }
  EXPECT_THAT(seen, SizeIs(6));
}

TEST_F(JobStoreConcurrencyTest, PositionsThatNoPageReturnedAreRefused) {
  for (const char* position : {"x", "1", "1.", "1.x", "-1.00000000-0000-4000-8000-000000000000"}) {
    EXPECT_THAT(store().list(kDefaultTenant, 2, position),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("position")))
        << position;
  }
  EXPECT_THAT(store().list(kDefaultTenant, 0, ""),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("page_size: 0")));
}

TEST_F(JobStoreConcurrencyTest, HigherPriorityGoesFirstThenAge) {
  const std::string old = submit();
  const std::string young = submit();
  const std::string urgent = submit();
  execute(absl::StrCat("UPDATE job SET priority = 1 WHERE id = '", urgent, "'"));
  EXPECT_EQ(claim().lease.job_id, urgent);
  EXPECT_EQ(claim().lease.job_id, old);
  EXPECT_EQ(claim().lease.job_id, young);
}

TEST_F(JobStoreConcurrencyTest, TenantsShareWorkersByWeight) {
  execute("INSERT INTO tenant (id, weight) VALUES ('light', 1), ('heavy', 3)");
  for (int i = 0; i < 10; ++i) submit("light");
  for (int i = 0; i < 10; ++i) submit("heavy");
  std::map<std::string, int> running;
  for (int i = 0; i < 8; ++i) ++running[claim().tenant];
  EXPECT_EQ(running["light"], 2);
  EXPECT_EQ(running["heavy"], 6);
}

TEST_F(JobStoreConcurrencyTest, LongQueueDoesNotHoldUpAnotherTenant) {
  execute("INSERT INTO tenant (id) VALUES ('late')");
  for (int i = 0; i < 10; ++i) submit();
  claim();
  claim();
  submit("late");
  EXPECT_EQ(claim().tenant, "late");
  EXPECT_EQ(claim().tenant, kDefaultTenant) << "a tenant without jobs keeps no worker idle";
}

}  // namespace
}  // namespace qaas
