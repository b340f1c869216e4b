#pragma once

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "storage/artifacts/artifact_store.h"
#include "tests/agent/temporary_folder.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/status_matchers.h"
#include "workers/agent/agent.h"

namespace qaas::testing {

/// True once `condition` holds; false if it does not within a minute.
inline bool eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= deadline) {
      return false;
    }
    std::this_thread::yield();
  }
  return true;
}

inline bool is_alive(pid_t process) { return ::kill(process, 0) == 0; }

/// The program of that name beside this test or in the build's bin folder.
inline std::string program(const std::string& name) {
  const auto tests = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  const auto beside = tests / name;
  return std::filesystem::exists(beside) ? beside.string()
                                         : (tests.parent_path() / "bin" / name).string();
}

/// A real queue and artifact store, and jobs whose engine (fake_engine) follows a script.
class AgentFixture : public PostgresTest {
 protected:
  static constexpr std::chrono::milliseconds kLease{6000};

  void SetUp() override {
    PostgresTest::SetUp();
    if (HasFatalFailure()) return;
    for (const char* name : {"models", "datasets"}) {
      std::filesystem::create_directory(folder() / name);
    }
    write_file(folder() / "datasets" / "text", "some text");
    QAAS_ASSERT_OK_AND_ASSIGN(artifacts_, open_local_artifact_store(folder() / "artifacts"));
    store_ = std::make_unique<JobStore>(
        database(),
        JobStoreOptions{.lease = kLease, .first_backoff = std::chrono::milliseconds(0)});
  }

  const std::filesystem::path& folder() const { return folder_.path(); }
  JobStore& store() { return *store_; }
  ArtifactStore& artifacts() { return *artifacts_; }

  /// Submits a job that follows `script` (see fake_engine_main.cpp) and returns its id.
  std::string submit(const std::string& script) {
    std::filesystem::create_directory(model());
    write_file(model() / "script", script);
    v1::Job job;
    job.mutable_spec()->set_model("models/scripted");
    job.mutable_spec()->set_method(v1::METHOD_EFFICIENT_QAT);
    job.mutable_spec()->mutable_evaluation()->set_dataset("datasets/text");
    job.mutable_spec()->mutable_calibration()->set_dataset("datasets/text");
    job.set_model_digest("d1");
    const auto submitted = store().submit(kDefaultTenant, job, "");
    EXPECT_THAT(submitted, IsOk());
    return submitted.ok() ? submitted->name().substr(sizeof("jobs/") - 1) : "";
  }

  std::filesystem::path model() const { return folder() / "models" / "scripted"; }

  v1::Job get(const std::string& job) {
    const auto found = store().get(kDefaultTenant, job);
    EXPECT_THAT(found, IsOk());
    return found.value_or(v1::Job());
  }

  bool reaches(const std::string& job, v1::JobState state) {
    return eventually([&] { return get(job).state() == state; });
  }

  /// Texts of the job's warnings, in order.
  std::vector<std::string> warnings(const std::string& job) {
    std::vector<std::string> texts;
    const auto events = store().events_after(job, 0, 10000);
    EXPECT_THAT(events, IsOk());
    for (const v1::JobEvent& event : events.value_or(std::vector<v1::JobEvent>())) {
      if (event.has_warning()) texts.push_back(event.warning().message());
    }
    return texts;
  }

  bool gets_warning(const std::string& job, const std::string& text) {
    return eventually([&] {
      const auto texts = warnings(job);
      return std::find(texts.begin(), texts.end(), text) != texts.end();
    });
  }

  /// Process id that the script's "note NAME" wrote.
  pid_t noted(const std::string& name) {
    EXPECT_TRUE(eventually([&] { return std::filesystem::exists(model() / name); }));
    return std::atoi(content_of(model() / name).c_str());
  }

 private:
  TemporaryFolder folder_;
  std::unique_ptr<ArtifactStore> artifacts_;
  std::unique_ptr<JobStore> store_;
};

}  // namespace qaas::testing
