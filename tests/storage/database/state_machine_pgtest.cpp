// The schema itself refuses what the state machine does not allow, whoever writes: raw SQL here.
#include <set>
#include <utility>

#include <absl/strings/str_cat.h>

#include "tests/support/postgres_fixture.h"
#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using namespace testing;  // NOLINT: the fixtures' namespace
using ::testing::HasSubstr;

class StateMachineTest : public PostgresTest {
 protected:
  // What each state needs beside its name.
  static std::string columns_of(const std::string& state) {
    std::string columns = absl::StrCat(
        "state = '", state, "', lease_token = ", state == "running" ? "gen_random_uuid()" : "NULL");
    const bool settled = state == "succeeded" || state == "failed" || state == "cancelled";
    absl::StrAppend(
        &columns, ", end_time = ", settled ? "clock_timestamp()" : "NULL",
        ", evaluation = ", state == "succeeded" ? "'{}'" : "NULL",
        ", failure = ", state == "failed" ? "'{}'" : "NULL",
        state == "running" ? ", attempt = attempt + 1, start_time = clock_timestamp()" : "");
    return columns;
  }

  absl::Status try_sql(const std::string& sql) {
    return database().transact([&](pqxx::work& work) {
      work.exec(sql);
      return absl::OkStatus();
    });
  }

  absl::Status change(const std::string& columns) {
    return try_sql(absl::StrCat("UPDATE job SET ", columns));
  }

  // The only job, brought to `state` by legal steps.
  void start_from(const std::string& state) {
    execute("DELETE FROM job");
    execute(
        "INSERT INTO job (tenant, spec, forecast, model_digest) VALUES ('default', '{}', '{}', "
        "'')");
    if (state == "queued") return;
    if (state != "paused") {
      ASSERT_THAT(change(columns_of("running")), IsOk());
    }
    if (state != "running") {
      ASSERT_THAT(change(columns_of(state)), IsOk());
    }
  }

  void expect_refused(const std::string& columns, const std::string& constraint) {
    EXPECT_THAT(change(columns), StatusIs(absl::StatusCode::kInternal, HasSubstr(constraint)))
        << columns;
  }
};

TEST_F(StateMachineTest, ExactlyTheDrawnTransitionsAreAllowed) {
  const std::set<std::pair<std::string, std::string>> allowed = {
      {"queued", "running"},    {"queued", "cancelled"}, {"queued", "paused"},
      {"running", "succeeded"}, {"running", "failed"},   {"running", "cancelled"},
      {"running", "paused"},    {"running", "queued"},   {"paused", "queued"},
      {"paused", "cancelled"}};
  const char* states[] = {"queued", "running", "succeeded", "failed", "cancelled", "paused"};
  for (const std::string from : states) {
    for (const std::string to : states) {
      if (from == to) continue;
      start_from(from);
      const absl::Status status = change(columns_of(to));
      if (allowed.contains({from, to})) {
        EXPECT_THAT(status, IsOk()) << from << " to " << to;
      } else {
        EXPECT_THAT(status, StatusIs(absl::StatusCode::kInternal,
                                     HasSubstr(absl::StrCat("from ", from, " to ", to))));
      }
    }
  }
}

TEST_F(StateMachineTest, JobsStartQueued) {
  for (const char* state : {"paused", "cancelled"}) {
    EXPECT_THAT(try_sql(absl::StrCat(
                    "INSERT INTO job (tenant, spec, forecast, model_digest, state, end_time) ",
                    "VALUES ('default', '{}', '{}', '', '", state, "', NULL)")),
                StatusIs(absl::StatusCode::kInternal, HasSubstr("every job starts as queued")));
  }
}

TEST_F(StateMachineTest, RunningMeansALease) {
  start_from("running");
  expect_refused("lease_token = NULL", "job_running_has_lease");
  start_from("queued");
  expect_refused("lease_token = gen_random_uuid()", "job_running_has_lease");
}

TEST_F(StateMachineTest, SettledMeansAnEnd) {
  start_from("cancelled");
  expect_refused("end_time = NULL", "job_settled_has_end");
  start_from("running");
  expect_refused("end_time = clock_timestamp()", "job_settled_has_end");
}

TEST_F(StateMachineTest, SuccessMeansAnEvaluation) {
  start_from("succeeded");
  expect_refused("evaluation = NULL", "job_succeeded_has_evaluation");
  start_from("running");
  expect_refused("evaluation = '{}'", "job_succeeded_has_evaluation");
}

TEST_F(StateMachineTest, FailureIsKeptWhereItMatters) {
  start_from("failed");
  expect_refused("failure = NULL", "job_failed_has_failure");
  start_from("running");
  expect_refused("failure = '{}'", "job_failure_is_shown_while_it_matters");
}

TEST_F(StateMachineTest, OnlyARunningJobIsAskedToStop) {
  start_from("queued");
  expect_refused("requested = 'cancel'", "job_only_running_is_asked");
}

TEST_F(StateMachineTest, AttemptCountsClaimsAndNothingElse) {
  start_from("running");
  expect_refused("attempt = 0", "attempt goes from 1 to 0");
  expect_refused("attempt = 2", "attempt goes from 1 to 2");
  start_from("queued");
  expect_refused("state = 'running', lease_token = gen_random_uuid()", "attempt goes from 0 to 0");
}

TEST_F(StateMachineTest, FailuresNeverOutnumberAttempts) {
  start_from("running");
  expect_refused("failures = 2", "job_counts");
  expect_refused("failures = -1", "job_counts");
}

TEST_F(StateMachineTest, RequestIdNeedsAFingerprint) {
  start_from("queued");
  expect_refused("request_id = 'r'", "job_request_id_has_fingerprint");
}

}  // namespace
}  // namespace qaas
