// Who may write to a job: leases, stale attempts, rescue, and commits whose answer got lost.
#include <atomic>
#include <thread>

#include <absl/cleanup/cleanup.h>
#include <absl/strings/str_cat.h>

#include "storage/database/connection_string.h"
#include "tests/storage/database/job_fixture.h"

namespace qaas {
namespace {

using namespace testing;  // NOLINT: the fixtures' namespace
using ::testing::_;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class JobStoreFenceTest : public JobStoreTest {
 protected:
  std::vector<std::string> rescue() {
    const auto rescued = store().rescue_expired();
    EXPECT_THAT(rescued, IsOk());
    return rescued.value_or(std::vector<std::string>());
  }

  // Every write a worker can make is refused and leaves no trace.
  void expect_no_write_lands(const std::string& job_id, const Lease& lease) {
    const std::string before = get(job_id).SerializeAsString();
    const auto aborted = StatusIs(absl::StatusCode::kAborted, HasSubstr("no longer this worker's"));
    QAAS_ASSERT_OK_AND_ASSIGN(const LeaseState state, store().renew(lease));
    EXPECT_EQ(state, LeaseState::kLost);
    EXPECT_THAT(store().append_events(lease, {v1::JobEvent()}), aborted);
    EXPECT_THAT(store().append_events(lease, {}), aborted);
    EXPECT_THAT(store().set_progress(lease, {}), aborted);
    EXPECT_THAT(store().add_checkpoint(lease, {"b0", "k", 1, "s"}, {}), aborted);
    EXPECT_THAT(store().settle_succeeded(lease, {{"m", "k", 1, "s"}}, {}), aborted);
    EXPECT_THAT(store().settle_failed(lease, failure(v1::FAILURE_CLASS_CALLER)), aborted);
    EXPECT_THAT(store().settle_cancelled(lease), aborted);
    EXPECT_THAT(store().release(lease), aborted);
    EXPECT_EQ(get(job_id).SerializeAsString(), before);
    EXPECT_EQ(execute("SELECT (SELECT count(*) FROM job_checkpoint) + "
                      "(SELECT count(*) FROM job_artifact)")[0][0]
                  .as<int>(),
              0);
  }

  // Runs `write` on a store whose commit of it succeeds while the answer is lost: the commit waits
  // for a standby that does not exist, and is cut off there, already committed. Only sessions with
  // synchronous_commit = on wait, so other tests go on.
  void with_lost_answer(const std::function<void(JobStore&)>& write) {
    const std::string dsn_waiting =
        absl::StrCat(with_server_setting(dsn(), "synchronous_commit", "on").value(),
                     " application_name=lost_answer");
    Database waiting({.dsn = dsn_waiting, .pool_size = 1});
    JobStore store(waiting, {.first_backoff = kNoBackoff});
    std::jthread writer;
    set_standby("'nobody'");
    const absl::Cleanup let_go = [this] { set_standby("DEFAULT"); };
    // The setting takes effect a little later: once a commit has been cut off, all of them wait.
    std::jthread canary([&] {
      const auto commit = [](pqxx::work& work) {
        work.exec("SELECT pg_current_xact_id()");
        return absl::OkStatus();
      };
      while (waiting.transact(commit).ok()) {
      }
    });
    cut_off_waiting_commit();
    canary.join();
    writer = std::jthread([&] { write(store); });
    cut_off_waiting_commit();
  }

 private:
  void cut_off_waiting_commit() {
    execute(R"sql(
      DO $$
      DECLARE
        deadline timestamptz := clock_timestamp() + interval '120 seconds';
        waiting integer;
      BEGIN
        LOOP
          PERFORM pg_stat_clear_snapshot();
          SELECT pid INTO waiting FROM pg_stat_activity
           WHERE application_name = 'lost_answer' AND wait_event = 'SyncRep';
          EXIT WHEN waiting IS NOT NULL;
          IF clock_timestamp() > deadline THEN RAISE 'no commit is waiting'; END IF;
          PERFORM pg_sleep(0.005);
        END LOOP;
        PERFORM pg_terminate_backend(waiting, 10000);
      END $$)sql");
  }

  void set_standby(const std::string& names) {
    pqxx::connection connection(dsn());
    pqxx::nontransaction work(connection);
    work.exec(absl::StrCat("ALTER SYSTEM SET synchronous_standby_names = ", names));
    work.exec("SELECT pg_reload_conf()");
    // It is the checkpointer that passes this setting on: wakes it.
    work.exec("CHECKPOINT");
  }
};

TEST_F(JobStoreFenceTest, StaleAttemptChangesNothing) {
  const std::string id = submit();
  const Lease stale = claim("worker-1").lease;
  expire_leases();
  ASSERT_THAT(rescue(), ElementsAre(id));
  expect_no_write_lands(id, stale);

  const Lease current = claim("worker-2").lease;
  EXPECT_EQ(current.attempt, 2);
  expect_no_write_lands(id, stale);
  EXPECT_THAT(store().settle_succeeded(current, {}, {}), IsOk());
  expect_no_write_lands(id, stale);
}

TEST_F(JobStoreFenceTest, TokenOfSomeoneElseOpensNothing) {
  const std::string id = submit();
  Lease lease = claim().lease;
  lease.token = "00000000-0000-4000-8000-000000000000";
  expect_no_write_lands(id, lease);
}

TEST_F(JobStoreFenceTest, AttemptOfSomeoneElseOpensNothing) {
  const std::string id = submit();
  Lease lease = claim().lease;
  ++lease.attempt;
  expect_no_write_lands(id, lease);
}

TEST_F(JobStoreFenceTest, ExpiredLeaseNobodyRescuedIsRenewed) {
  const std::string id = submit();
  const Lease lease = claim().lease;
  expire_leases();
  QAAS_ASSERT_OK_AND_ASSIGN(const LeaseState state, store().renew(lease));
  EXPECT_EQ(state, LeaseState::kHeld);
  EXPECT_THAT(rescue(), IsEmpty());
  EXPECT_EQ(get(id).state(), v1::JOB_STATE_RUNNING);
}

TEST_F(JobStoreFenceTest, LiveLeaseIsNotRescued) {
  submit();
  claim();
  EXPECT_THAT(rescue(), IsEmpty());
}

TEST_F(JobStoreFenceTest, LeaseLastsAsLongAsAsked) {
  JobStore generous(database(), {.lease = std::chrono::hours{2}});
  submit();
  QAAS_ASSERT_OK_AND_ASSIGN(const auto claimed, generous.claim("worker-1"));
  ASSERT_TRUE(claimed.has_value());
  const auto minutes_left = [&] {
    return execute(
               "SELECT round(extract(epoch FROM leased_until - clock_timestamp()) / 60) "
               "FROM job_lease")[0][0]
        .as<double>();
  };
  EXPECT_EQ(minutes_left(), 120);
  expire_leases();
  ASSERT_THAT(generous.renew(claimed->lease), IsOk());
  EXPECT_EQ(minutes_left(), 120);
}

TEST_F(JobStoreFenceTest, RescueCountsAsAnInfrastructureFailureAndSaysSo) {
  const std::string id = submit();
  claim("worker-7");
  expire_leases();
  ASSERT_THAT(rescue(), ElementsAre(id));
  const v1::Job job = get(id);
  EXPECT_EQ(job.state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(job.failures(), 1);
  EXPECT_EQ(job.failure().failure_class(), v1::FAILURE_CLASS_INFRASTRUCTURE);
  EXPECT_THAT(job.failure().message(), HasSubstr("worker 'worker-7' was not heard of"));
  const v1::JobEvent event = events(id).back();
  EXPECT_EQ(event.state_changed().state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(event.attempt(), 1);
  EXPECT_EQ(execute("SELECT count(*) FROM job_lease")[0][0].as<int>(), 0);
}

TEST_F(JobStoreFenceTest, RescuesAreBounded) {
  const std::string id = submit();
  for (int attempt = 1; attempt <= 3; ++attempt) {
    EXPECT_EQ(claim().lease.attempt, attempt);
    expire_leases();
    rescue();
  }
  EXPECT_EQ(get(id).state(), v1::JOB_STATE_FAILED);
}

TEST_F(JobStoreFenceTest, RescueHonoursACancelRequest) {
  const std::string id = submit();
  claim();
  ASSERT_THAT(store().request_cancel(kDefaultTenant, id), IsOk());
  expire_leases();
  ASSERT_THAT(rescue(), ElementsAre(id));
  EXPECT_EQ(get(id).state(), v1::JOB_STATE_CANCELLED);
}

TEST_F(JobStoreFenceTest, ProcessesThatRescueAtOnceRescueOnce) {
  for (int i = 0; i < 5; ++i) {
    submit();
    claim();
  }
  expire_leases();
  std::atomic<int> rescued = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { rescued += static_cast<int>(rescue().size()); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(rescued, 5);
  EXPECT_EQ(execute("SELECT sum(failures) FROM job")[0][0].as<int>(), 5);
  EXPECT_EQ(execute("SELECT sum(last_event) FROM job")[0][0].as<int>(), 15);
}

TEST_F(JobStoreFenceTest, RenewalAndRescueAtOnceAgree) {
  for (int round = 0; round < 20; ++round) {
    const std::string id = submit();
    const Lease lease = claim().lease;
    expire_leases();
    LeaseState renewed = LeaseState::kHeld;
    std::thread renewing([&] { renewed = store().renew(lease).value(); });
    const size_t rescued = rescue().size();
    renewing.join();
    EXPECT_EQ(rescued, renewed == LeaseState::kLost ? 1U : 0U);
    ASSERT_THAT(store().request_cancel(kDefaultTenant, id), IsOk());
    store().settle_cancelled(lease).IgnoreError();
  }
}

TEST_F(JobStoreFenceTest, SettlingTwiceInOneWayIsSettlingOnce) {
  const std::string succeeding = submit();
  Lease lease = claim().lease;
  const std::vector<StoredFile> files = {{"m", "k", 1, "s"}};
  ASSERT_THAT(store().settle_succeeded(lease, files, {}), IsOk());
  ASSERT_THAT(store().settle_succeeded(lease, files, {}), IsOk());
  EXPECT_EQ(get(succeeding).last_event(), 3);

  const std::string failing = submit();
  lease = claim().lease;
  for (int i = 0; i < 2; ++i) {
    QAAS_ASSERT_OK_AND_ASSIGN(const v1::JobState state,
                              store().settle_failed(lease, failure(v1::FAILURE_CLASS_RESOURCE)));
    EXPECT_EQ(state, v1::JOB_STATE_QUEUED);
  }
  EXPECT_EQ(get(failing).failures(), 1);

  lease = claim().lease;
  ASSERT_THAT(store().release(lease), IsOk());
  ASSERT_THAT(store().release(lease), IsOk());
  EXPECT_EQ(get(failing).attempt(), 2);
}

TEST_F(JobStoreFenceTest, SettlingInTwoWaysIsRefused) {
  submit();
  const Lease lease = claim().lease;
  ASSERT_THAT(store().settle_succeeded(lease, {}, {}), IsOk());
  const auto aborted = StatusIs(absl::StatusCode::kAborted, _);
  EXPECT_THAT(store().settle_failed(lease, failure(v1::FAILURE_CLASS_CALLER)), aborted);
  EXPECT_THAT(store().settle_cancelled(lease), aborted);
  EXPECT_THAT(store().release(lease), aborted);
}

TEST_F(JobStoreFenceTest, PublishingIsAllOrNothing) {
  const std::string id = submit();
  const Lease lease = claim().lease;
  EXPECT_THAT(store().settle_succeeded(lease, {{"m", "k", 1, "s"}, {"m", "l", 1, "s"}}, {}),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("job_artifact")));
  EXPECT_EQ(get(id).state(), v1::JOB_STATE_RUNNING);
  QAAS_ASSERT_OK_AND_ASSIGN(const auto files, store().artifacts(kDefaultTenant, id));
  EXPECT_THAT(files, IsEmpty());
}

TEST_F(JobStoreFenceTest, EventsWhoseCommitWasInDoubtAreWrittenOnce) {
  const std::string id = submit();
  const Lease lease = claim().lease;
  v1::JobEvent warning;
  warning.mutable_warning()->set_message("once");
  with_lost_answer([&](JobStore& store) {
    EXPECT_THAT(store.append_events(lease, {warning, warning}), IsOk());
  });
  EXPECT_THAT(events(id), SizeIs(4));
}

TEST_F(JobStoreFenceTest, SettleWhoseCommitWasInDoubtIsAnsweredByReading) {
  const std::string id = submit();
  const Lease lease = claim().lease;
  with_lost_answer([&](JobStore& store) {
    EXPECT_THAT(store.settle_succeeded(lease, {{"m", "k", 1, "s"}}, {}), IsOk());
  });
  EXPECT_EQ(get(id).state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(JobStoreFenceTest, ClaimWhoseCommitWasInDoubtIsFoundByItsToken) {
  const std::string first = submit();
  submit();
  with_lost_answer([&](JobStore& store) {
    QAAS_ASSERT_OK_AND_ASSIGN(const auto claimed, store.claim("worker-1"));
    ASSERT_TRUE(claimed.has_value());
    EXPECT_EQ(claimed->lease.job_id, first);
  });
  EXPECT_EQ(execute("SELECT count(*) FROM job_lease")[0][0].as<int>(), 1);
}

TEST_F(JobStoreFenceTest, SubmitWhoseCommitWasInDoubtMakesOneJob) {
  with_lost_answer([&](JobStore& store) {
    EXPECT_THAT(store.submit(kDefaultTenant, a_job("r1"), "f"), IsOk());
  });
  EXPECT_EQ(execute("SELECT count(*) FROM job")[0][0].as<int>(), 1);
}

}  // namespace
}  // namespace qaas
