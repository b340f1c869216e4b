// The four real programs on the demo model: what a newcomer does, and what may be killed meanwhile.
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <regex>
#include <thread>

#include "storage/database/job_store.h"
#include "tests/agent/running_program.h"
#include "tests/agent/temporary_folder.h"
#include "tests/support/postgres_fixture.h"

namespace qaas::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string setting(const char* name) {
  const char* value = std::getenv(name);
  EXPECT_NE(value, nullptr) << name << " is not set: run this test through ctest";
  return value == nullptr ? "" : value;
}

std::string program(const std::string& name) { return setting("QAAS_BINARY_DIR") + "/bin/" + name; }

/// True once `condition` holds; false if it does not within five minutes.
bool eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(5);
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

/// The child process of a worker: its engine.
std::optional<pid_t> child_of(pid_t parent) {
  for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(parent) + "/task")) {
    std::ifstream children(task.path() / "children");
    if (pid_t child; children >> child) return child;
  }
  return std::nullopt;
}

class ServiceTest : public PostgresTest {
 protected:
  void SetUp() override {
    PostgresTest::SetUp();
    if (HasFatalFailure()) return;
    store_ = std::make_unique<JobStore>(database(), JobStoreOptions{});
    const fs::path demo = setting("QAAS_SOURCE_DIR") + "/tests/data/demo";
    fs::create_directories(folder() / "models");
    fs::create_directories(folder() / "datasets");
    fs::copy(demo / "models" / "kjv-sotu-4m", folder() / "models" / "demo");
    for (const std::string& text :
         {std::string("sotu-calibration"), std::string("sotu-evaluation")}) {
      fs::copy(demo / "datasets" / text, folder() / "datasets" / text, fs::copy_options::recursive);
    }
    auto arguments = shared(program("qaas-server"));
    arguments.insert(arguments.begin() + 1, "serve");
    arguments.insert(arguments.end(), {"--listen", "127.0.0.1:0", "--scan-seconds", "0.1"});
    server_ = std::make_unique<RunningProgram>(arguments);
    ASSERT_TRUE(eventually([this] {
      std::smatch found;
      const std::string said = server_->output();
      if (!std::regex_search(said, found, std::regex("serves gRPC on ([0-9.:]+)"))) return false;
      address_ = found[1];
      return true;
    })) << server_->output();
  }

  const fs::path& folder() const { return folder_.path(); }
  JobStore& store() { return *store_; }

  std::vector<std::string> shared(const std::string& path) const {
    return {path,
            "--database",
            dsn(),
            "--models",
            folder() / "models",
            "--datasets",
            folder() / "datasets",
            "--artifacts",
            folder() / "artifacts",
            "--metrics",
            "127.0.0.1:0",
            "--first-backoff-seconds",
            "0.1"};
  }

  void start_worker() {
    auto arguments = shared(program("qaas-worker"));
    arguments.insert(arguments.end(), {"--scratch", folder() / "scratch"});
    worker_ = std::make_unique<RunningProgram>(arguments);
  }

  struct Answer {
    int exit_code;
    std::string text;
  };
  Answer qaas(const std::vector<std::string>& words) {
    std::vector<std::string> arguments{program("qaas"), "--server", address_};
    arguments.insert(arguments.end(), words.begin(), words.end());
    auto client = ChildProcess::spawn(arguments, "/");
    EXPECT_THAT(client, IsOk());
    std::string text;
    char buffer[4096];
    for (ssize_t count; (count = ::read((*client)->output(), buffer, sizeof buffer)) > 0;) {
      text.append(buffer, static_cast<size_t>(count));
    }
    return {(*client)->wait().exit_code, text};
  }

  std::vector<std::string> job(const std::string& group_size = "64") const {
    return {"submit",
            "--model",
            "demo",
            "--method",
            "efficient-qat",
            "--bits",
            "2",
            "--group-size",
            group_size,
            "--calibration",
            "sotu-calibration",
            "--evaluation",
            "sotu-evaluation",
            "--samples",
            "16",
            "--eval-samples",
            "4",
            "--sequence-length",
            "128"};
  }

  /// Waits until the server has read the model, submits, and returns the job's id.
  std::string submit(const std::vector<std::string>& more_flags = {}) {
    EXPECT_TRUE(eventually([this] {
      return qaas({"--json", "models", "demo"}).text.find("STATE_READY") != std::string::npos;
    }));
    std::vector<std::string> words = job();
    words.insert(words.end(), more_flags.begin(), more_flags.end());
    const Answer answer = qaas(words);
    EXPECT_EQ(answer.exit_code, 0) << answer.text;
    std::smatch found;
    EXPECT_TRUE(std::regex_search(answer.text, found, std::regex("jobs/([0-9a-f-]{36})")))
        << answer.text;
    return found.empty() ? "" : found[1].str();
  }

  v1::Job get(const std::string& id) {
    const auto found = store().get(kDefaultTenant, id);
    EXPECT_THAT(found, IsOk());
    return found.value_or(v1::Job());
  }

  int count_events(const std::string& id, const std::function<bool(const v1::JobEvent&)>& wanted) {
    const auto events = store().events_after(id, 0, 10000);
    EXPECT_THAT(events, IsOk());
    const auto all = events.value_or(std::vector<v1::JobEvent>());
    return static_cast<int>(std::count_if(all.begin(), all.end(), wanted));
  }

  bool has_checkpoint(const std::string& id) {
    return eventually([&] {
      return count_events(id, [](const v1::JobEvent& e) { return e.has_checkpoint_written(); }) > 0;
    });
  }

  /// The job succeeded in its second attempt, which did not train its first block again.
  void expect_resumed(const std::string& id) {
    ASSERT_TRUE(eventually([&] { return get(id).state() == v1::JOB_STATE_SUCCEEDED; }))
        << get(id).ShortDebugString() << worker_->output();
    EXPECT_EQ(get(id).attempt(), 2);
    EXPECT_EQ(count_events(id,
                           [](const v1::JobEvent& event) {
                             return event.has_block_finished() &&
                                    event.block_finished().block() == 0;
                           }),
              1);
  }

  TemporaryFolder folder_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<RunningProgram> server_;
  std::unique_ptr<RunningProgram> worker_;
  std::string address_;
};

TEST_F(ServiceTest, AModelIsQuantizedEvaluatedAndDownloaded) {
  start_worker();
  const std::string id = submit();
  const Answer watched = qaas({"watch", id});
  ASSERT_EQ(watched.exit_code, 0) << watched.text << worker_->output();

  const v1::Evaluation evaluation = get(id).evaluation();
  EXPECT_GT(evaluation.original().loss(), 0);
  EXPECT_GT(evaluation.round_to_nearest().loss(), evaluation.original().loss());
  // How much training helps is measured elsewhere: sixteen short windows teach little.
  EXPECT_NEAR(evaluation.measured_error(),
              evaluation.quantized().loss() - evaluation.original().loss(), 1e-9);
  EXPECT_GT(evaluation.quantized().kl_divergence(), 0);
  EXPECT_TRUE(get(id).forecast().has_quantized());

  const Answer downloaded = qaas({"download", id, "--out", folder() / "result"});
  ASSERT_EQ(downloaded.exit_code, 0) << downloaded.text;
  for (const char* file : {"manifest.json", "config.json", "model.safetensors", "tokenizer.json"}) {
    EXPECT_TRUE(fs::exists(folder() / "result" / file)) << file;
  }
  EXPECT_LT(fs::file_size(folder() / "result" / "model.safetensors"),
            fs::file_size(folder() / "models" / "demo" / "model.safetensors"));
}

TEST_F(ServiceTest, AJobSurvivesTheDeathOfItsEngine) {
  start_worker();
  const std::string id = submit();
  ASSERT_TRUE(has_checkpoint(id)) << worker_->output();
  const auto engine = child_of(worker_->id());
  ASSERT_TRUE(engine.has_value());
  ::kill(*engine, SIGKILL);
  expect_resumed(id);
}

TEST_F(ServiceTest, AJobSurvivesTheDeathOfItsWorker) {
  start_worker();
  const std::string id = submit();
  ASSERT_TRUE(has_checkpoint(id)) << worker_->output();
  worker_->signal(SIGKILL);
  worker_->wait();
  expire_leases();
  start_worker();
  expect_resumed(id);
}

TEST_F(ServiceTest, AJobIsCancelledInTheMiddleOfABlock) {
  start_worker();
  // Long enough that it cannot finish before the cancellation arrives.
  std::ofstream(folder() / "long.json") << R"({"block_ap": {"epochs": 100}})";
  const std::string id = submit({"--spec", (folder() / "long.json").string()});
  ASSERT_TRUE(eventually([&] { return get(id).progress().phase() == v1::PHASE_BLOCK_TRAINING; }))
      << worker_->output();
  const Answer cancelled = qaas({"cancel", id});
  EXPECT_EQ(cancelled.exit_code, 0) << cancelled.text;
  EXPECT_EQ(qaas({"watch", id}).exit_code, 6);
  EXPECT_EQ(get(id).state(), v1::JOB_STATE_CANCELLED);
}

TEST_F(ServiceTest, AGroupSizeThatDoesNotDivideIsRefusedByName) {
  submit();
  const Answer refused = qaas(job("48"));
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.text, HasSubstr("48"));
  EXPECT_THAT(refused.text, HasSubstr("group_size"));
}

}  // namespace
}  // namespace qaas::testing
