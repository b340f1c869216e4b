#include "tests/agent/agent_fixture.h"
#include "workers/agent/agent.h"

namespace qaas::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kFinish[] =
    "phase 5\nartifact config.json {}\nartifact model.safetensors weights\nphase 6\nevaluation\n"
    "written\nexit 0\n";

class AgentTest : public AgentFixture {
 protected:
  void TearDown() override { stop(); }

  AgentOptions options() const {
    AgentOptions options{.name = "worker-1",
                         .poll = std::chrono::milliseconds(20),
                         .first_rest = std::chrono::milliseconds(0)};
    options.attempt.roots = {.models = folder() / "models",
                             .datasets = folder() / "datasets",
                             .engine = program("fake_engine"),
                             .threads = 1};
    options.attempt.lease = kLease;
    return options;
  }

  void start(AgentOptions options) {
    QAAS_ASSERT_OK_AND_ASSIGN(scratch_, ScratchFolder::open(folder() / "scratch"));
    metrics_ = std::make_unique<AgentMetrics>(registry_);
    agent_ = std::make_unique<Agent>(
        AttemptContext{
            .jobs = store(), .artifacts = artifacts(), .scratch = *scratch_, .metrics = *metrics_},
        std::move(options));
    thread_ = std::thread([this] { agent_->run(); });
  }

  void stop() {
    if (thread_.joinable()) {
      agent_->stop();
      thread_.join();
    }
  }

  double counter(const std::string& name) {
    for (const auto& family : registry_->Collect()) {
      if (family.name == name) return family.metric.at(0).counter.value;
    }
    ADD_FAILURE() << "no metric " << name;
    return -1;
  }

  /// Waits until the agent has dropped an attempt.
  bool loses_its_lease() {
    return eventually([this] { return counter("qaas_worker_lease_losses_total") == 1; });
  }

  std::vector<std::string> files_below(const fs::path& root) {
    std::vector<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      if (!entry.is_directory()) names.push_back(entry.path().filename().string());
    }
    return names;
  }

  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  std::unique_ptr<ScratchFolder> scratch_;
  std::unique_ptr<AgentMetrics> metrics_;
  std::unique_ptr<Agent> agent_;
  std::thread thread_;
};

TEST_F(AgentTest, SuccessPublishesEveryFileWithSizeAndDigest) {
  const std::string job =
      submit(std::string("phase 1\nphase 3\nprogress 0 5\ncheckpoint block-0 alpha\n") + kFinish);
  start(options());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_SUCCEEDED));
  stop();

  EXPECT_EQ(get(job).evaluation().quantized().loss(), 2);
  QAAS_ASSERT_OK_AND_ASSIGN(const auto files, store().artifacts(kDefaultTenant, job));
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[0].name, "config.json");
  EXPECT_EQ(files[1].name, "model.safetensors");
  EXPECT_EQ(files[1].key, "jobs/" + job + "/attempts/1/artifact/model.safetensors");
  EXPECT_EQ(files[1].size_bytes, 7);
  // echo -n weights | sha256sum
  EXPECT_EQ(files[1].sha256, "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c");
  std::string bytes;
  ASSERT_THAT(artifacts().read(files[1].key, 0, 100, bytes), IsOk());
  EXPECT_EQ(bytes, "weights");
  EXPECT_THAT(files_below(folder() / "scratch"), IsEmpty());
}

TEST_F(AgentTest, EventsKeepTheirOrder) {
  const std::string job = submit(
      std::string("phase 1\nwarning first\nphase 3\ncheckpoint a x\nwarning second\n") + kFinish);
  start(options());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_SUCCEEDED));
  std::vector<std::string> kinds;
  QAAS_ASSERT_OK_AND_ASSIGN(const auto events, store().events_after(job, 0, 1000));
  for (const v1::JobEvent& event : events) {
    std::string kind = "?";
    if (event.has_state_changed()) kind = v1::JobState_Name(event.state_changed().state());
    if (event.has_phase_started()) kind = v1::Phase_Name(event.phase_started().phase());
    if (event.has_warning()) kind = event.warning().message();
    if (event.has_checkpoint_written()) kind = event.checkpoint_written().file();
    if (event.has_evaluation()) kind = "evaluation";
    kinds.push_back(kind);
  }
  EXPECT_THAT(kinds, ElementsAre("JOB_STATE_QUEUED", "JOB_STATE_RUNNING", "PHASE_LOADING", "first",
                                 "PHASE_BLOCK_TRAINING", "a", "second", "PHASE_EXPORTING",
                                 "PHASE_EVALUATING", "evaluation", "PHASE_PUBLISHING",
                                 "JOB_STATE_SUCCEEDED"));
}

TEST_F(AgentTest, AKilledEngineIsRetriedFromItsCheckpoints) {
  const std::string job =
      submit(std::string("1:progress 1 5\n1:checkpoint block-0 alpha\n1:checkpoint block-1 beta\n"
                         "1:signal 9\nresumed\n") +
             kFinish);
  start(options());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_SUCCEEDED));
  EXPECT_EQ(get(job).attempt(), 2);
  EXPECT_EQ(get(job).failures(), 1);
  EXPECT_THAT(warnings(job), ElementsAre("resumed from block-0=alpha block-1=beta"));
}

TEST_F(AgentTest, OfACheckpointWrittenAgainTheLatestCounts) {
  const std::string job =
      submit(std::string("1:checkpoint state old\n1:checkpoint state new\n1:signal 9\nresumed\n") +
             kFinish);
  start(options());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_SUCCEEDED));
  EXPECT_THAT(warnings(job), ElementsAre("resumed from state=new"));
}

TEST_F(AgentTest, ACorruptCheckpointIsLeftOutAndTheJobIsTold) {
  const std::string job = submit(
      std::string("1:checkpoint a x\n1:checkpoint b y\n1:note pid\n1:wait\nresumed\n") + kFinish);
  start(options());
  ASSERT_TRUE(gets_warning(job, "waiting"));
  write_file(folder() / "artifacts/jobs" / job / "attempts/1/checkpoints/a", "X");
  ::kill(noted("pid"), SIGKILL);
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_SUCCEEDED));
  EXPECT_THAT(warnings(job),
              ElementsAre("waiting", HasSubstr("checkpoint 'a' of an earlier attempt is corrupt"),
                          "resumed from b=y"));
}

TEST_F(AgentTest, ACheckpointThatCannotBeKeptIsAWarningOnly) {
  const std::string job = submit(std::string("announce gone\nannounce ../escape\n") + kFinish);
  start(options());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_SUCCEEDED));
  EXPECT_THAT(warnings(job), ElementsAre(HasSubstr("'gone' was not kept"),
                                         HasSubstr("'../escape' is no file name")));
}

TEST_F(AgentTest, CancelIsSeenWithinOneHeartbeat) {
  const std::string job = submit("note pid\nwait\n");
  start(options());
  ASSERT_TRUE(gets_warning(job, "waiting"));
  const pid_t engine = noted("pid");
  const auto asked = std::chrono::steady_clock::now();
  ASSERT_THAT(store().request_cancel(kDefaultTenant, job), IsOk());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_CANCELLED));
  // A heartbeat is a third of the lease; the rest is for a busy machine.
  EXPECT_LT(std::chrono::steady_clock::now() - asked, kLease);
  EXPECT_FALSE(is_alive(engine));
}

TEST_F(AgentTest, AnEngineThatIgnoresCancelIsKilledAfterTheGrace) {
  const std::string job = submit("note pid\ndeaf\n");
  AgentOptions impatient = options();
  impatient.attempt.engine.cancel_grace = std::chrono::milliseconds(50);
  start(impatient);
  ASSERT_TRUE(gets_warning(job, "deaf"));
  const pid_t engine = noted("pid");
  ASSERT_THAT(store().request_cancel(kDefaultTenant, job), IsOk());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_CANCELLED));
  EXPECT_FALSE(is_alive(engine));
}

TEST_F(AgentTest, AWorkerThatLostItsLeaseKillsTheEngineAndWritesNothing) {
  const std::string job = submit(std::string("note pid\ndeaf\n") + kFinish);
  start(options());
  ASSERT_TRUE(gets_warning(job, "deaf"));
  const pid_t engine = noted("pid");
  execute("UPDATE job SET lease_token = gen_random_uuid()");
  const v1::Job before = get(job);
  ASSERT_TRUE(loses_its_lease());
  EXPECT_FALSE(is_alive(engine));
  const v1::Job after = get(job);
  EXPECT_EQ(after.state(), v1::JOB_STATE_RUNNING) << "whoever holds the token now goes on";
  EXPECT_EQ(after.last_event(), before.last_event());
  EXPECT_EQ(after.failures(), 0);
}

TEST_F(AgentTest, AResultFinishedAfterTheLeaseWasLostIsNotPublished) {
  const std::string job = submit(std::string("warning here\nuntil go\n") + kFinish);
  start(options());
  ASSERT_TRUE(gets_warning(job, "here"));
  execute("UPDATE job SET lease_token = gen_random_uuid()");
  // The engine now succeeds well before the next heartbeat: only the fence is in the way.
  write_file(model() / "go", "");
  ASSERT_TRUE(loses_its_lease());
  EXPECT_EQ(get(job).state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(execute("SELECT FROM job_artifact").size(), 0u);
}

TEST_F(AgentTest, ACheckpointWrittenAfterTheLeaseWasLostIsNotKept) {
  const std::string job = submit("wait\n");
  start(options());
  ASSERT_TRUE(gets_warning(job, "waiting"));
  execute("UPDATE job SET lease_token = gen_random_uuid()");
  agent_->stop();
  ASSERT_TRUE(loses_its_lease());
  EXPECT_EQ(get(job).state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(execute("SELECT FROM job_checkpoint").size(), 0u);
}

TEST_F(AgentTest, AStoppedWorkerGivesItsJobBackWithItsLastCheckpoint) {
  const std::string job = submit(std::string("1:wait\nresumed\n") + kFinish);
  start(options());
  ASSERT_TRUE(gets_warning(job, "waiting"));
  stop();
  EXPECT_EQ(get(job).state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(get(job).failures(), 0);

  registry_ = std::make_shared<prometheus::Registry>();
  start(options());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_SUCCEEDED));
  EXPECT_EQ(get(job).attempt(), 2);
  EXPECT_THAT(warnings(job), ElementsAre("waiting", "resumed from stopped=as asked"));
}

TEST_F(AgentTest, TheCallersFaultIsNeverRetried) {
  const std::string job =
      submit("failure 1 calibration.samples: 900, the dataset holds 12\nexit 2\n");
  start(options());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_FAILED));
  EXPECT_EQ(get(job).attempt(), 1);
  EXPECT_EQ(get(job).failure().message(), "calibration.samples: 900, the dataset holds 12");
  EXPECT_EQ(get(job).failure().failure_class(), v1::FAILURE_CLASS_CALLER);
}

TEST_F(AgentTest, AJobThatTwiceKillsItsEngineAtOneStepFailsForGood) {
  const std::string job = submit("progress 2 17\nsignal 9\n");
  start(options());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_FAILED));
  EXPECT_EQ(get(job).attempt(), 2);
  EXPECT_EQ(get(job).failure().position(), "block_training block 2 step 17");
  EXPECT_EQ(get(job).failure().failure_class(), v1::FAILURE_CLASS_RESOURCE);
}

TEST_F(AgentTest, AnEngineThatTalksNonsenseIsKilledAndIsOurFault) {
  const std::string job = submit("garbage\n");
  start(options());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_FAILED));
  EXPECT_EQ(get(job).attempt(), 2) << "one retry";
  EXPECT_EQ(get(job).failure().failure_class(), v1::FAILURE_CLASS_INTERNAL);
  EXPECT_THAT(get(job).failure().message(), HasSubstr("no event"));
}

TEST_F(AgentTest, ACrashQuotesTheEnginesLastWords) {
  const std::string job = submit("stderr 3\nexit 1\n");
  start(options());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_FAILED));
  EXPECT_THAT(get(job).failure().message(), HasSubstr("line of the fake engine, 0 to go"));
}

TEST_F(AgentTest, AFloodOnStderrHoldsNothingUp) {
  const std::string job = submit(std::string("stderr 300000\n") + kFinish);
  start(options());
  EXPECT_TRUE(reaches(job, v1::JOB_STATE_SUCCEEDED));
}

TEST_F(AgentTest, AModelThatIsNotHereIsTheMachinesFault) {
  const std::string job = submit("");
  fs::remove_all(model());
  start(options());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_FAILED));
  EXPECT_EQ(get(job).attempt(), 3);
  EXPECT_EQ(get(job).failure().failure_class(), v1::FAILURE_CLASS_INFRASTRUCTURE);
  EXPECT_THAT(get(job).failure().message(), HasSubstr("'models/scripted' on this worker"));
}

TEST_F(AgentTest, ARestAfterFailuresIsNotCutShortByTheJobBeingQueuedAgain) {
  const std::string job = submit("");
  fs::remove_all(model());
  AgentOptions resting = options();
  resting.first_rest = resting.longest_rest = std::chrono::hours(1);
  start(resting);
  ASSERT_TRUE(eventually([&] { return get(job).failures() == 2; }));
  for (int i = 0; i < 200; ++i) {
    agent_->wake();
    ASSERT_EQ(get(job).attempt(), 2);
  }
}

TEST_F(AgentTest, AnArtifactFileOutsideItsFolderIsNotPublished) {
  const std::string job = submit("evaluation\nartifact ../job.json x\nwritten\nexit 0\n");
  start(options());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_FAILED));
  EXPECT_THAT(get(job).failure().message(), HasSubstr("which is no plain file"));
}

TEST_F(AgentTest, OneJobIsWorkedOnAfterTheOther) {
  std::vector<std::string> jobs;
  for (int i = 0; i < 3; ++i) jobs.push_back(submit(kFinish));
  start(options());
  for (const std::string& job : jobs) {
    EXPECT_TRUE(reaches(job, v1::JOB_STATE_SUCCEEDED));
  }
  stop();
  EXPECT_EQ(counter("qaas_worker_claims_total"), 3);
}

TEST_F(AgentTest, WakingAnIdleAgentMakesItLook) {
  AgentOptions sleepy = options();
  sleepy.poll = std::chrono::hours(1);
  start(sleepy);
  const std::string job = submit(kFinish);
  EXPECT_TRUE(eventually([&] {
    agent_->wake();
    return get(job).state() == v1::JOB_STATE_SUCCEEDED;
  }));
}

}  // namespace
}  // namespace qaas::testing
