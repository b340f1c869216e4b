#include <csignal>
#include <cstdint>
#include <fcntl.h>
#include <optional>
#include <poll.h>
#include <spawn.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <google/protobuf/util/json_util.h>

#include "tests/engine/job/job_fixture.h"

extern char** environ;

namespace qaas {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::read_file;
using testing::RunLog;
using ::testing::StartsWith;
using testing::tiny_spec;

/// qaas-engine as a worker starts it: events come through a pipe, the rest goes to a file.
class EngineProcess {
 public:
  /// `arguments` follow the program's name; the pipe is descriptor 3 there.
  EngineProcess(const std::vector<std::string>& arguments, const std::filesystem::path& output) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output.c_str(),
                                     O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    // Through another number: duplicating a descriptor onto itself would leave it closed on exec.
    posix_spawn_file_actions_adddup2(&actions, ends[1], 100);
    posix_spawn_file_actions_adddup2(&actions, 100, 3);
    posix_spawn_file_actions_addclose(&actions, 100);
    std::vector<std::string> words{QAAS_ENGINE};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    EXPECT_EQ(::posix_spawn(&id_, QAAS_ENGINE, &actions, nullptr, pointers.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    events_ = ends[0];
  }
  ~EngineProcess() {
    if (id_ > 0) {
      ::kill(id_, SIGKILL);
      wait();
    }
    ::close(events_);
  }

  void signal(int number) const { ::kill(id_, number); }

  /// The next event; nullopt at the end of the pipe, or (a failure) after a minute of silence.
  std::optional<v1::EngineEvent> next() {
    uint64_t size = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = read(1);
      if (!byte.has_value()) return std::nullopt;
      size |= static_cast<uint64_t>((*byte)[0] & 0x7f) << shift;
      if (((*byte)[0] & 0x80) == 0) break;
    }
    const auto bytes = read(size);
    v1::EngineEvent event;
    EXPECT_TRUE(bytes.has_value() && event.ParseFromString(*bytes)) << "event of " << size;
    return event;
  }

  /// Reads to the end and reaps: the exit status, or minus the signal that ended it.
  int finish(RunLog& log, std::optional<v1::Failure>* failure = nullptr) {
    while (const auto event = next()) {
      log.add(*event);
      if (event->has_failure() && failure != nullptr) *failure = event->failure();
    }
    return wait();
  }

 private:
  std::optional<std::string> read(size_t count) {
    std::string bytes(count, '\0');
    for (size_t done = 0; done < count;) {
      pollfd ready{.fd = events_, .events = POLLIN};
      if (::poll(&ready, 1, 60000) != 1) {
        ADD_FAILURE() << "the engine said nothing for a minute";
        return std::nullopt;
      }
      const ssize_t got = ::read(events_, bytes.data() + done, count - done);
      if (got <= 0) return std::nullopt;
      done += static_cast<size_t>(got);
    }
    return bytes;
  }
  int wait() {
    int status = 0;
    EXPECT_EQ(::waitpid(id_, &status, 0), id_);
    id_ = 0;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  }

  pid_t id_ = 0;
  int events_ = -1;
};

class EngineProgram : public testing::JobTest {
 protected:
  EngineProgram() : JobTest({.blocks = 3, .dtype = Dtype::kBf16}) {}

  /// Three blocks of which each takes so long that a signal after the first comes in time.
  static v1::JobSpec long_spec() {
    v1::JobSpec spec = tiny_spec();
    spec.mutable_block_ap()->set_epochs(100);
    return spec;
  }
  std::vector<std::string> arguments(const v1::JobSpec& spec, const std::string& name) const {
    std::string json;
    EXPECT_TRUE(google::protobuf::util::MessageToJsonString(spec, &json).ok());
    const RunFolders where = folders(name);
    return {"run",
            "--threads",
            "1",
            "--spec",
            folder_.write(name + ".json", json),
            "--model",
            where.model,
            "--calibration",
            where.calibration,
            "--evaluation",
            where.evaluation,
            "--out",
            where.out,
            "--checkpoints",
            where.checkpoints,
            "--events-fd",
            "3"};
  }
  EngineProcess start(const v1::JobSpec& spec, const std::string& name) const {
    return EngineProcess(arguments(spec, name), log_file());
  }
  std::filesystem::path log_file() const { return folder_ / "engine.log"; }

  /// Runs to the end and expects success.
  RunLog complete(const v1::JobSpec& spec, const std::string& name) const {
    EngineProcess engine = start(spec, name);
    RunLog log;
    EXPECT_EQ(engine.finish(log), 0) << read_file(log_file());
    return log;
  }
  /// Reads events until the first block is safe.
  static void await_checkpoint(EngineProcess& engine) {
    while (const auto event = engine.next()) {
      if (event->checkpoint_written().file() == "block-0000.safetensors") return;
    }
    FAIL() << "no checkpoint was written";
  }
};

TEST_F(EngineProgram, TellsTheWholeRunThroughThePipeAndExitsWithZero) {
  const RunLog log = complete(tiny_spec(), "a");
  EXPECT_EQ(log.phases.front(), v1::PHASE_LOADING);
  EXPECT_EQ(log.phases.back(), v1::PHASE_EVALUATING);
  EXPECT_THAT(log.trained_blocks, ElementsAre(0, 1, 2));
  EXPECT_GT(log.evaluation.quantized().perplexity(), 1);
  EXPECT_THAT(log.files, Contains("manifest.json"));
  EXPECT_THAT(read_file(log_file()), IsEmpty());
}

TEST_F(EngineProgram, ASpecThatCannotWorkIsTheCallersFault) {
  v1::JobSpec spec = tiny_spec();
  spec.mutable_weights()->set_group_size(48);
  EngineProcess engine = start(spec, "a");
  RunLog log;
  std::optional<v1::Failure> failure;
  EXPECT_EQ(engine.finish(log, &failure), 2);
  ASSERT_TRUE(failure.has_value());
  EXPECT_EQ(failure->failure_class(), v1::FAILURE_CLASS_CALLER);
  EXPECT_EQ(failure->code(), "INVALID_ARGUMENT");
  EXPECT_THAT(failure->message(), AllOf(HasSubstr("weights.group_size"), HasSubstr("48")));
  EXPECT_EQ(failure->position(), "loading");
  EXPECT_FALSE(std::filesystem::exists(folders("a").out));
}

TEST_F(EngineProgram, ACommandLineThatCannotWorkExitsAsHelpSays) {
  const auto status_of = [&](const std::vector<std::string>& arguments) {
    RunLog log;
    return EngineProcess(arguments, log_file()).finish(log);
  };
  EXPECT_EQ(status_of({}), 2);
  EXPECT_EQ(status_of({"run", "--model", "m", "--evaluation", "e", "--out", "o"}), 2);
  EXPECT_EQ(status_of({"eval", "--model", folder_ / "nowhere", "--evaluation", "e"}), 2);
  EXPECT_THAT(read_file(log_file()), HasSubstr("nowhere"));
  EXPECT_EQ(status_of({"--help"}), 0);
}

TEST_F(EngineProgram, EvalPrintsWhatTheRunMeasured) {
  RunLog measured, log;
  ASSERT_THAT(run(tiny_spec(), "a", &measured), testing::IsOk());
  EngineProcess eval({"eval", "--threads", "1", "--model", folders("a").out, "--evaluation",
                      folder_ / "evaluation", "--original", folder_ / "model", "--sequence-length",
                      "20", "--samples", "6"},
                     log_file());
  EXPECT_EQ(eval.finish(log), 0);
  const v1::ModelScore& score = measured.evaluation.quantized();
  char expected[200];
  std::snprintf(expected, sizeof expected, "windows 6 x 20  loss %.6f  perplexity %.4f  kl %.6f",
                score.loss(), score.perplexity(), score.kl_divergence());
  EXPECT_THAT(read_file(log_file()), StartsWith(expected));
}

TEST_F(EngineProgram, TerminatedWhileTrainingItExitsWith75AndResumesToTheSameBytes) {
  ASSERT_THAT(run(long_spec(), "whole"), testing::IsOk());
  EngineProcess engine = start(long_spec(), "a");
  await_checkpoint(engine);
  engine.signal(SIGTERM);
  RunLog log;
  std::optional<v1::Failure> failure;
  EXPECT_EQ(engine.finish(log, &failure), 75) << read_file(log_file());
  ASSERT_TRUE(failure.has_value());
  EXPECT_EQ(failure->code(), "CANCELLED");
  EXPECT_EQ(failure->failure_class(), v1::FAILURE_CLASS_INFRASTRUCTURE);
  EXPECT_THAT(complete(long_spec(), "a").trained_blocks, AllOf(Contains(2), Not(Contains(0))));
  EXPECT_TRUE(weights("a") == weights("whole"));
}

TEST_F(EngineProgram, KilledWhileTrainingItCompletesToTheSameBytesWhenRunAgain) {
  ASSERT_THAT(run(long_spec(), "whole"), testing::IsOk());
  EngineProcess engine = start(long_spec(), "a");
  await_checkpoint(engine);
  engine.signal(SIGKILL);
  RunLog log;
  EXPECT_EQ(engine.finish(log), -SIGKILL);
  const RunLog again = complete(long_spec(), "a");
  EXPECT_THAT(again.trained_blocks, AllOf(Contains(2), Not(Contains(0))));
  EXPECT_THAT(again.warnings, IsEmpty());
  EXPECT_TRUE(weights("a") == weights("whole"));
}

}  // namespace
}  // namespace qaas
