// One job at a time through the whole life that callers and workers see.
#include <absl/strings/str_cat.h>

#include "storage/database/job_store.h"
#include "tests/storage/database/job_fixture.h"

namespace qaas {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using namespace testing;  // NOLINT: the fixtures' namespace

v1::Evaluation an_evaluation() {
  v1::Evaluation evaluation;
  evaluation.mutable_original()->set_loss(1.0 / 3.0);
  evaluation.set_artifact_bytes(int64_t{1} << 40);
  return evaluation;
}

TEST_F(JobStoreTest, SubmittedJobReadsBackAsGiven) {
  QAAS_ASSERT_OK_AND_ASSIGN(const v1::Job job,
                            store().submit(kDefaultTenant, a_job("r1"), "fingerprint"));
  EXPECT_EQ(job.state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(job.spec().SerializeAsString(), a_job().spec().SerializeAsString());
  EXPECT_EQ(job.forecast().quantized().error(), 0.125);
  EXPECT_EQ(job.model_digest(), "d1");
  EXPECT_EQ(job.request_id(), "r1");
  EXPECT_EQ(job.attempt(), 0);
  EXPECT_EQ(job.last_event(), 1);
  EXPECT_GT(job.create_time().seconds(), 1700000000);
  EXPECT_FALSE(job.has_start_time());
  EXPECT_EQ(get(id_of(job)).SerializeAsString(), job.SerializeAsString());

  const std::vector<v1::JobEvent> seen = events(id_of(job));
  ASSERT_THAT(seen, SizeIs(1));
  EXPECT_EQ(seen[0].number(), 1);
  EXPECT_EQ(seen[0].state_changed().reason(), "submitted");
}

TEST_F(JobStoreTest, JobsOfOtherTenantsDoNotExist) {
  execute("INSERT INTO tenant (id) VALUES ('other')");
  const std::string id = submit("other");
  EXPECT_THAT(store().get(kDefaultTenant, id),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(id)));
  EXPECT_THAT(store().request_cancel(kDefaultTenant, id),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(id)));
  EXPECT_THAT(store().artifacts(kDefaultTenant, id),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(id)));
  QAAS_ASSERT_OK_AND_ASSIGN(const JobStore::Page page, store().list(kDefaultTenant, 10, ""));
  EXPECT_THAT(page.jobs, IsEmpty());
}

TEST_F(JobStoreTest, NamesThatAreNoUuidsAreNotFound) {
  EXPECT_THAT(store().get(kDefaultTenant, "nonsense' OR 1=1"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("nonsense")));
}

TEST_F(JobStoreTest, ClaimHandsOutTheJobWithItsFence) {
  const std::string id = submit();
  const ClaimedJob claimed = claim("worker-1");
  EXPECT_EQ(claimed.lease.job_id, id);
  EXPECT_EQ(claimed.lease.attempt, 1);
  EXPECT_EQ(claimed.tenant, kDefaultTenant);
  EXPECT_EQ(claimed.job.state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(claimed.job.spec().model(), "models/tiny");
  EXPECT_TRUE(claimed.job.has_start_time());
  EXPECT_THAT(claimed.checkpoints, IsEmpty());
  QAAS_ASSERT_OK_AND_ASSIGN(const auto next, store().claim("worker-2"));
  EXPECT_FALSE(next.has_value());
}

TEST_F(JobStoreTest, PublishedJobHasFilesEvaluationAndEnd) {
  const std::string id = submit();
  const Lease lease = claim().lease;
  ASSERT_THAT(store().settle_succeeded(lease,
                                       {{"model.safetensors", "jobs/J/attempts/1/m", 12, "ab"},
                                        {"config.json", "jobs/J/attempts/1/c", 3, "cd"}},
                                       an_evaluation()),
              IsOk());
  const v1::Job job = get(id);
  EXPECT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job.evaluation().SerializeAsString(), an_evaluation().SerializeAsString());
  EXPECT_TRUE(job.has_end_time());
  QAAS_ASSERT_OK_AND_ASSIGN(const auto files, store().artifacts(kDefaultTenant, id));
  ASSERT_THAT(files, SizeIs(2));
  EXPECT_EQ(files[0].name, "config.json");
  EXPECT_EQ(files[1].key, "jobs/J/attempts/1/m");
  EXPECT_EQ(files[1].size_bytes, 12);
  EXPECT_EQ(files[1].sha256, "ab");
}

TEST_F(JobStoreTest, JobWithoutArtifactsListsNone) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto files, store().artifacts(kDefaultTenant, submit()));
  EXPECT_THAT(files, IsEmpty());
}

TEST_F(JobStoreTest, EventsComeBackInOrderWithNumberTimeAndAttempt) {
  const std::string id = submit();
  const Lease lease = claim().lease;
  v1::JobEvent warning;
  warning.set_number(99);
  warning.mutable_warning()->set_message(std::string("a \0 and \"quotes\"", 16));
  v1::JobEvent progress;
  progress.mutable_progress()->set_step(5);
  ASSERT_THAT(store().append_events(lease, {warning, progress}), IsOk());

  const std::vector<v1::JobEvent> seen = events(id);
  ASSERT_THAT(seen, SizeIs(4));
  EXPECT_EQ(seen[1].state_changed().state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(seen[2].number(), 3);
  EXPECT_EQ(seen[2].attempt(), 1);
  EXPECT_EQ(seen[2].warning().message(), warning.warning().message());
  EXPECT_GE(seen[2].time().seconds(), seen[0].time().seconds());
  EXPECT_EQ(seen[3].progress().step(), 5);
  EXPECT_EQ(get(id).progress().step(), 5) << "the last progress event is the job's progress";

  QAAS_ASSERT_OK_AND_ASSIGN(const auto page, store().events_after(id, 1, 2));
  ASSERT_THAT(page, SizeIs(2));
  EXPECT_EQ(page[0].number(), 2);
}

TEST_F(JobStoreTest, ProgressIsOverwrittenWithoutEvents) {
  const std::string id = submit();
  const Lease lease = claim().lease;
  v1::Progress progress;
  for (const int step : {1, 2}) {
    progress.set_step(step);
    ASSERT_THAT(store().set_progress(lease, progress), IsOk());
  }
  EXPECT_EQ(get(id).progress().step(), 2);
  EXPECT_THAT(events(id), SizeIs(2));
}

TEST_F(JobStoreTest, NextAttemptFindsTheCheckpointsOfEarlierOnes) {
  submit();
  const Lease first = claim().lease;
  v1::CheckpointWritten event;
  event.set_file("b1");
  ASSERT_THAT(store().add_checkpoint(first, {"b1", "key-old", 1, "s"}, event), IsOk());
  ASSERT_THAT(store().add_checkpoint(first, {"b0", "key-0", 1, "s"}, event), IsOk());
  ASSERT_THAT(store().add_checkpoint(first, {"b1", "key-new", 2, "t"}, event), IsOk());
  ASSERT_THAT(store().release(first), IsOk());

  const ClaimedJob second = claim();
  EXPECT_EQ(second.lease.attempt, 2);
  ASSERT_THAT(second.checkpoints, SizeIs(2));
  EXPECT_EQ(second.checkpoints[0].name, "b0");
  EXPECT_EQ(second.checkpoints[1].key, "key-new");
}

TEST_F(JobStoreTest, ReleaseLeavesTheRetryBudgetAlone) {
  const std::string id = submit();
  ASSERT_THAT(store().release(claim().lease), IsOk());
  const v1::Job job = get(id);
  EXPECT_EQ(job.state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(job.failures(), 0);
  EXPECT_EQ(job.attempt(), 1);
  EXPECT_EQ(claim().lease.attempt, 2);
}

TEST_F(JobStoreTest, QueuedJobIsCancelledAtOnce) {
  const std::string id = submit();
  QAAS_ASSERT_OK_AND_ASSIGN(const v1::Job job, store().request_cancel(kDefaultTenant, id));
  EXPECT_EQ(job.state(), v1::JOB_STATE_CANCELLED);
  EXPECT_TRUE(job.has_end_time());
  QAAS_ASSERT_OK_AND_ASSIGN(const v1::Job again, store().request_cancel(kDefaultTenant, id));
  EXPECT_EQ(again.SerializeAsString(), job.SerializeAsString());
  EXPECT_EQ(events(id).back().state_changed().state(), v1::JOB_STATE_CANCELLED);
}

TEST_F(JobStoreTest, RunningJobIsCancelledByItsWorker) {
  const std::string id = submit();
  const Lease lease = claim().lease;
  EXPECT_THAT(store().settle_cancelled(lease),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("nobody has asked")));
  QAAS_ASSERT_OK_AND_ASSIGN(const v1::Job asked, store().request_cancel(kDefaultTenant, id));
  EXPECT_EQ(asked.state(), v1::JOB_STATE_RUNNING);
  EXPECT_TRUE(asked.cancel_requested());
  QAAS_ASSERT_OK_AND_ASSIGN(const LeaseState state, store().renew(lease));
  EXPECT_EQ(state, LeaseState::kCancelRequested);
  ASSERT_THAT(store().settle_cancelled(lease), IsOk());
  const v1::Job job = get(id);
  EXPECT_EQ(job.state(), v1::JOB_STATE_CANCELLED);
  EXPECT_FALSE(job.cancel_requested());
}

TEST_F(JobStoreTest, CancelOutranksAFailureAndARelease) {
  const std::string failed = submit();
  const Lease failing = claim().lease;
  ASSERT_THAT(store().request_cancel(kDefaultTenant, failed), IsOk());
  QAAS_ASSERT_OK_AND_ASSIGN(
      const v1::JobState state,
      store().settle_failed(failing, failure(v1::FAILURE_CLASS_INFRASTRUCTURE)));
  EXPECT_EQ(state, v1::JOB_STATE_CANCELLED);
  EXPECT_FALSE(get(failed).has_failure());

  const std::string released = submit();
  const Lease releasing = claim().lease;
  ASSERT_THAT(store().request_cancel(kDefaultTenant, released), IsOk());
  ASSERT_THAT(store().release(releasing), IsOk());
  EXPECT_EQ(get(released).state(), v1::JOB_STATE_CANCELLED);
}

TEST_F(JobStoreTest, SettledJobCannotBeCancelled) {
  const std::string id = submit();
  ASSERT_THAT(store().settle_succeeded(claim().lease, {}, an_evaluation()), IsOk());
  EXPECT_THAT(store().request_cancel(kDefaultTenant, id),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("has already succeeded")));
}

TEST_F(JobStoreTest, StatisticsNameEveryStateAndTheOldestDueJob) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto none, store().statistics());
  EXPECT_THAT(none.jobs_by_state, ElementsAre(std::pair("cancelled", 0), std::pair("failed", 0),
                                              std::pair("paused", 0), std::pair("queued", 0),
                                              std::pair("running", 0), std::pair("succeeded", 0)));
  EXPECT_EQ(none.oldest_queued_seconds, 0);

  submit();
  submit();
  submit();
  claim();
  execute("UPDATE job SET due_time = due_time - interval '1 hour'");
  QAAS_ASSERT_OK_AND_ASSIGN(const auto some, store().statistics());
  EXPECT_EQ(some.jobs_by_state.at("queued"), 2);
  EXPECT_EQ(some.jobs_by_state.at("running"), 1);
  EXPECT_GE(some.oldest_queued_seconds, 3600);
  EXPECT_LT(some.oldest_queued_seconds, 3700);
}

TEST_F(JobStoreTest, OnlyUnnamedPrefixesOfFinishedAttemptsAreCollectable) {
  const std::string id = submit();
  const auto prefix = [&](int attempt) {
    return absl::StrCat("jobs/", id, "/attempts/", attempt, "/");
  };
  const std::vector<std::string> found = {prefix(3) + "checkpoints/",
                                          prefix(3) + "artifact/",
                                          prefix(3),
                                          prefix(2),
                                          prefix(1),
                                          prefix(1) + "/",
                                          absl::StrCat("jobs/", id, "/attempts/x/"),
                                          "elsewhere/",
                                          "jobs/00000000-0000-4000-8000-000000000000/attempts/1/"};
  const Lease first = claim().lease;
  const v1::CheckpointWritten event;
  ASSERT_THAT(store().add_checkpoint(first, {"b0", absl::StrCat(prefix(1), "b0"), 1, "s"}, event),
              IsOk());
  ASSERT_THAT(store().release(first), IsOk());
  ASSERT_THAT(store().release(claim().lease), IsOk());
  const Lease third = claim().lease;
  EXPECT_THAT(store().collectable(found).value(), ElementsAre(prefix(2)))
      << "1 holds a checkpoint, 3 is running";

  ASSERT_THAT(
      store().settle_succeeded(third, {{"m", prefix(3) + "artifact/m", 1, "s"}}, an_evaluation()),
      IsOk());
  EXPECT_THAT(store().collectable(found).value(),
              ElementsAre(prefix(1), prefix(2), prefix(3) + "checkpoints/"))
      << "a finished job needs its artifact only";
}

}  // namespace
}  // namespace qaas
