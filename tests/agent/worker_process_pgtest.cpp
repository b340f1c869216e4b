// qaas-worker as a process: what its refusals say, and what happens when it is killed or stopped.
#include <mutex>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/agent/agent_fixture.h"
#include "tests/agent/running_program.h"

namespace qaas::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kFinish[] = "artifact model.safetensors weights\nevaluation\nwritten\nexit 0\n";

/// A running qaas-worker.
class Worker : public RunningProgram {
 public:
  using RunningProgram::RunningProgram;
  bool says(const std::string& text) {
    return eventually([&] { return output().find(text) != std::string::npos; });
  }
};

class WorkerProcessTest : public AgentFixture {
 protected:
  /// The worker's command line, with `value` for `flag` where given.
  std::vector<std::string> command(const std::string& flag = "",
                                   const std::string& value = "") const {
    std::vector<std::string> arguments{program("qaas-worker"),
                                       "--database-file",
                                       (folder() / "dsn").string(),
                                       "--models",
                                       (folder() / "models").string(),
                                       "--datasets",
                                       (folder() / "datasets").string(),
                                       "--artifacts",
                                       (folder() / "artifacts").string(),
                                       "--scratch",
                                       (folder() / "scratch").string(),
                                       "--engine",
                                       program("fake_engine"),
                                       "--metrics",
                                       "127.0.0.1:0",
                                       "--lease-seconds",
                                       "6",
                                       "--first-backoff-seconds",
                                       "0.001"};
    const auto found = std::find(arguments.begin(), arguments.end(), flag);
    if (found != arguments.end()) {
      *std::next(found) = value;
    } else if (!flag.empty()) {
      arguments.insert(arguments.end(), {flag, value});
    }
    return arguments;
  }

  void SetUp() override {
    AgentFixture::SetUp();
    if (HasFatalFailure()) return;
    write_file(folder() / "dsn", dsn() + "\n");
  }

  /// Starts a worker that must refuse to, and returns what it says.
  std::string refusal(const std::vector<std::string>& arguments) {
    Worker worker(arguments);
    EXPECT_EQ(worker.wait().exit_code, 1);
    EXPECT_TRUE(worker.says("cannot start"));
    return worker.output();
  }
};

TEST_F(WorkerProcessTest, AKilledWorkerTakesItsEngineWithItAndAnotherFinishesTheJob) {
  const std::string job =
      submit(std::string("1:checkpoint block-0 alpha\n1:note pid\n1:deaf\nresumed\n") + kFinish);
  {
    Worker worker(command());
    ASSERT_TRUE(gets_warning(job, "deaf"));
    const pid_t engine = noted("pid");
    worker.signal(SIGKILL);
    ASSERT_EQ(worker.wait().signal, SIGKILL);
    EXPECT_TRUE(eventually([&] { return !is_alive(engine); })) << "an orphan holds the GPU";
  }
  EXPECT_EQ(get(job).state(), v1::JOB_STATE_RUNNING) << "nobody knows yet";
  expire_leases();
  ASSERT_THAT(store().rescue_expired(), IsOk());

  Worker other(command());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_SUCCEEDED)) << other.output();
  EXPECT_EQ(get(job).attempt(), 2);
  EXPECT_EQ(get(job).failures(), 1);
  EXPECT_THAT(warnings(job), ElementsAre("deaf", "resumed from block-0=alpha"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder() / "scratch"), {}), 1)
      << "the dead worker's scratch folder is gone";
}

TEST_F(WorkerProcessTest, AStoppedWorkerComesBackToAJobThatIsNoLongerIts) {
  const std::string job = submit(std::string("1:note pid\n1:deaf\n") + kFinish);
  Worker stale(command());
  ASSERT_TRUE(gets_warning(job, "deaf"));
  const pid_t engine = noted("pid");
  stale.signal(SIGSTOP);
  expire_leases();
  ASSERT_THAT(store().rescue_expired(), IsOk());
  Worker other(command());
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_SUCCEEDED)) << other.output();
  const int64_t last_event = get(job).last_event();

  stale.signal(SIGCONT);
  EXPECT_TRUE(stale.says("attempt ended: lease_lost")) << stale.output();
  EXPECT_FALSE(is_alive(engine));
  EXPECT_EQ(get(job).state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(get(job).last_event(), last_event);
}

TEST_F(WorkerProcessTest, SigtermHandsTheJobBackAndEndsInOrder) {
  const std::string job = submit("wait\n");
  Worker worker(command());
  ASSERT_TRUE(gets_warning(job, "waiting"));
  worker.signal(SIGTERM);
  const ProcessEnd end = worker.wait();
  EXPECT_EQ(end.exit_code, 0) << worker.output();
  EXPECT_EQ(end.signal, 0);
  EXPECT_EQ(get(job).state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(get(job).failures(), 0);
  EXPECT_EQ(execute("SELECT FROM job_checkpoint WHERE name = 'stopped'").size(), 1u);
  EXPECT_TRUE(fs::is_empty(folder() / "scratch"));
}

TEST_F(WorkerProcessTest, ASecondSignalEndsItAtOnce) {
  const std::string job = submit("note pid\ndeaf\n");
  Worker worker(command());
  ASSERT_TRUE(gets_warning(job, "deaf"));
  const pid_t engine = noted("pid");
  worker.signal(SIGINT);
  ASSERT_TRUE(worker.says("stopping")) << worker.output();
  worker.signal(SIGINT);
  EXPECT_EQ(worker.wait().exit_code, 1);
  EXPECT_TRUE(eventually([&] { return !is_alive(engine); }));
}

TEST_F(WorkerProcessTest, AnIdleWorkerIsWokenByASubmit) {
  Worker worker(command("--poll-seconds", "3600"));
  ASSERT_TRUE(worker.says("is ready")) << worker.output();
  const std::string job = submit(kFinish);
  EXPECT_TRUE(reaches(job, v1::JOB_STATE_SUCCEEDED)) << worker.output();
}

TEST_F(WorkerProcessTest, RefusesADatabaseOfAnotherVersion) {
  const TestSchema empty;
  write_file(folder() / "dsn", empty.dsn());
  EXPECT_THAT(refusal(command()), HasSubstr("FAILED_PRECONDITION"));
}

TEST_F(WorkerProcessTest, RefusesWhatIsNotThereNamingTheFlag) {
  EXPECT_THAT(refusal(command("--models", "/nowhere")), HasSubstr("--models /nowhere"));
  EXPECT_THAT(refusal(command("--datasets", "/nowhere")), HasSubstr("--datasets /nowhere"));
  EXPECT_THAT(refusal(command("--engine", "/etc/passwd")),
              HasSubstr("--engine /etc/passwd: no executable file"));
}

TEST_F(WorkerProcessTest, RefusesAMetricsPortThatIsTaken) {
  const FileDescriptor taken(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = {::htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(taken.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(taken.get(), 1), 0);
  ASSERT_EQ(::getsockname(taken.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string where = "127.0.0.1:" + std::to_string(::ntohs(address.sin_port));
  EXPECT_THAT(refusal(command("--metrics", where)), HasSubstr(where));
}

TEST_F(WorkerProcessTest, NoPasswordReachesTheLog) {
  write_file(folder() / "dsn", dsn() + " password=hunter2");
  const std::string job = submit("exit 1\n");
  Worker worker(command("--log-level", "debug"));
  ASSERT_TRUE(reaches(job, v1::JOB_STATE_FAILED));
  EXPECT_THAT(worker.output(), Not(HasSubstr("hunter2")));
}

}  // namespace
}  // namespace qaas::testing
