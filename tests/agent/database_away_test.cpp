// What happens when the database does not answer: it lies behind a socket that is not there.
#include <csignal>

#include <prometheus/registry.h>

#include "tests/agent/temporary_folder.h"
#include "tests/support/status_matchers.h"
#include "workers/agent/event_sender.h"
#include "workers/agent/lease_keeper.h"
#include "workers/agent/retry.h"

namespace qaas::testing {
namespace {

using Clock = AttemptControl::Clock;
using std::chrono::milliseconds;
using ::testing::Ge;

class DatabaseAwayTest : public ::testing::Test {
 protected:
  Database database_{{.dsn = "host=/nonexistent/socket dbname=none"}};
  JobStore jobs_{database_, {}};
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  AgentMetrics metrics_{registry_};
  AttemptControl control_;
  const Lease lease_{.job_id = "6cf3c8a0-0000-4000-8000-000000000001",
                     .attempt = 1,
                     .token = "6cf3c8a0-0000-4000-8000-000000000002"};
};

TEST_F(DatabaseAwayTest, TheEngineIsKilledWhenTheLeaseHasRunOut) {
  QAAS_ASSERT_OK_AND_ASSIGN(
      const auto engine, ChildProcess::spawn({"/bin/sh", "-c", "trap '' TERM; sleep 1000"}, "/"));
  control_.set_engine(engine.get());
  const auto claimed = Clock::now();
  const milliseconds length(300);
  const LeaseKeeper keeper(jobs_, lease_, length, claimed, control_, metrics_);
  EXPECT_EQ(engine->wait().signal, SIGKILL);
  EXPECT_THAT(Clock::now() - claimed, Ge(length));
  EXPECT_TRUE(control_.signals().expired);
  EXPECT_FALSE(control_.signals().lost) << "the database has not said so";
  control_.set_engine(nullptr);
}

TEST_F(DatabaseAwayTest, ALeaseThatRanOutBeforeTheEngineStartedKillsItToo) {
  control_.expire();
  QAAS_ASSERT_OK_AND_ASSIGN(const auto engine,
                            ChildProcess::spawn({"/bin/sh", "-c", "sleep 1000"}, "/"));
  control_.set_engine(engine.get());
  EXPECT_EQ(engine->wait().signal, SIGKILL);
  control_.set_engine(nullptr);
}

TEST_F(DatabaseAwayTest, PushingEventsNeverWaitsAndKeepsToItsBounds) {
  const TemporaryFolder folder;
  QAAS_ASSERT_OK_AND_ASSIGN(const auto artifacts,
                            open_local_artifact_store(folder.path() / "store"));
  EventSender sender(jobs_, *artifacts, lease_, folder.path(),
                     {.max_queued_events = 50, .max_queued_bytes = 1 << 20}, control_, metrics_);
  v1::JobEvent event;
  event.mutable_warning()->set_message("a warning");
  for (int i = 0; i < 100000; ++i) {
    sender.push(event);
    sender.push_progress({});
  }
  double dropped = 0;
  for (const auto& family : registry_->Collect()) {
    if (family.name == "qaas_worker_events_dropped_total") dropped = family.metric[0].counter.value;
  }
  // At most the queue and what the sending thread has taken out of it are held.
  EXPECT_THAT(dropped, Ge(100000 - 50 - 100));
  control_.shut_down(Clock::now());
  EXPECT_THAT(sender.finish(), StatusIs(absl::StatusCode::kUnavailable, ::testing::_));
}

TEST_F(DatabaseAwayTest, RetriesEndWhenTheWorkerGivesUp) {
  control_.shut_down(Clock::now() + milliseconds(200));
  int tries = 0;
  const absl::Status result = retry_write(control_, [&] {
    ++tries;
    return absl::UnavailableError("away");
  });
  EXPECT_THAT(result, StatusIs(absl::StatusCode::kUnavailable, "away"));
  EXPECT_THAT(tries, Ge(2));
}

TEST_F(DatabaseAwayTest, RetriesEndWhenTheLeaseIsLost) {
  int tries = 0;
  const absl::Status result = retry_write(control_, [&]() -> absl::Status {
    if (++tries == 2) control_.lose();
    return absl::UnavailableError("away");
  });
  EXPECT_THAT(result, StatusIs(absl::StatusCode::kAborted, ::testing::_));
  EXPECT_EQ(tries, 2);
}

TEST_F(DatabaseAwayTest, AnAbortedWriteMarksTheLeaseAsLost) {
  EXPECT_FALSE(retry_write(control_, [] { return absl::AbortedError("not yours"); }).ok());
  EXPECT_TRUE(control_.signals().lost);
}

}  // namespace
}  // namespace qaas::testing
