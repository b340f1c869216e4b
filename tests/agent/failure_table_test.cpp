#include "workers/agent/failure_table.h"

#include <csignal>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qaas {
namespace {

using ::testing::HasSubstr;

EngineEnding exited(int code) { return {.process = {.exit_code = code}}; }
EngineEnding killed_by(int signal) { return {.process = {.signal = signal}}; }

struct Row {
  EngineEnding ending;
  v1::FailureClass failure_class;
  const char* code;
  const char* words;
};

TEST(FailureTable, EveryEndingHasItsClass) {
  const Row rows[] = {
      {exited(0), v1::FAILURE_CLASS_INTERNAL, "INTERNAL", "without an artifact"},
      {exited(1), v1::FAILURE_CLASS_INTERNAL, "INTERNAL", "exit code 1"},
      {exited(2), v1::FAILURE_CLASS_CALLER, "INVALID_ARGUMENT", "refused the job"},
      {exited(3), v1::FAILURE_CLASS_RESOURCE, "RESOURCE_EXHAUSTED", "memory, disk or time"},
      {exited(75), v1::FAILURE_CLASS_INFRASTRUCTURE, "UNAVAILABLE", "asked to stop"},
      {exited(127), v1::FAILURE_CLASS_INFRASTRUCTURE, "UNAVAILABLE", "could not be started"},
      {exited(42), v1::FAILURE_CLASS_INTERNAL, "INTERNAL", "exit code 42"},
      {killed_by(SIGKILL), v1::FAILURE_CLASS_RESOURCE, "RESOURCE_EXHAUSTED", "memory ran out"},
      {killed_by(SIGXFSZ), v1::FAILURE_CLASS_RESOURCE, "RESOURCE_EXHAUSTED", "limit"},
      {killed_by(SIGBUS), v1::FAILURE_CLASS_INFRASTRUCTURE, "UNAVAILABLE", "mapped file"},
      {killed_by(SIGTERM), v1::FAILURE_CLASS_INFRASTRUCTURE, "UNAVAILABLE", "someone other"},
      {killed_by(SIGSEGV), v1::FAILURE_CLASS_INTERNAL, "INTERNAL", "signal 11"},
      {killed_by(SIGABRT), v1::FAILURE_CLASS_INTERNAL, "INTERNAL", "crashed"},
  };
  for (const Row& row : rows) {
    const auto failure = classify_engine_ending(row.ending);
    ASSERT_TRUE(failure.has_value()) << row.words;
    EXPECT_EQ(failure->failure_class(), row.failure_class) << row.words;
    EXPECT_EQ(failure->code(), row.code) << row.words;
    EXPECT_THAT(failure->message(), HasSubstr(row.words));
  }
}

TEST(FailureTable, SuccessNeedsArtifactEvaluationAndExitZero) {
  EngineEnding ending = exited(0);
  ending.artifact_written = true;
  EXPECT_TRUE(classify_engine_ending(ending).has_value()) << "no evaluation";
  ending.evaluated = true;
  EXPECT_FALSE(classify_engine_ending(ending).has_value());
  ending.process.exit_code = 1;
  EXPECT_TRUE(classify_engine_ending(ending).has_value()) << "exit code 1";
  ending.process = {.signal = SIGSEGV};
  EXPECT_TRUE(classify_engine_ending(ending).has_value()) << "crashed after its last event";
}

TEST(FailureTable, TheEnginesOwnWordsCount) {
  EngineEnding ending = exited(1);
  ending.reported.emplace();
  ending.reported->set_failure_class(v1::FAILURE_CLASS_CALLER);
  ending.reported->set_code("INVALID_ARGUMENT");
  ending.reported->set_message("calibration.samples: 900, the dataset holds 12");
  ending.position = "loading";
  const auto failure = classify_engine_ending(ending);
  EXPECT_EQ(failure->failure_class(), v1::FAILURE_CLASS_CALLER);
  EXPECT_EQ(failure->message(), "calibration.samples: 900, the dataset holds 12");
  EXPECT_EQ(failure->position(), "loading");
}

TEST(FailureTable, AReportWithoutClassGetsTheExitCodes) {
  EngineEnding ending = exited(3);
  ending.reported.emplace();
  ending.reported->set_position("block 3 step 17");
  const auto failure = classify_engine_ending(ending);
  EXPECT_EQ(failure->failure_class(), v1::FAILURE_CLASS_RESOURCE);
  EXPECT_EQ(failure->code(), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(failure->message(), "the engine ran out of memory, disk or time");
  EXPECT_EQ(failure->position(), "block 3 step 17");
}

TEST(FailureTable, AnEngineThatSaysItWasStoppedIsInfrastructure) {
  EngineEnding ending = exited(75);
  ending.reported.emplace();
  ending.reported->set_failure_class(v1::FAILURE_CLASS_INTERNAL);
  ending.reported->set_message("stopped");
  EXPECT_EQ(classify_engine_ending(ending)->failure_class(), v1::FAILURE_CLASS_INFRASTRUCTURE);
}

TEST(FailureTable, ACrashNamesPositionAndLastWords) {
  EngineEnding ending = killed_by(SIGSEGV);
  ending.position = "block_training block 3 step 17";
  ending.last_line = "about to divide by zero";
  const auto failure = classify_engine_ending(ending);
  EXPECT_EQ(failure->position(), "block_training block 3 step 17");
  EXPECT_THAT(failure->message(), HasSubstr("about to divide by zero"));
}

TEST(FailureTable, SenselessEventsAreOurFaultEvenIfWeKilledTheEngineForThem) {
  EngineEnding ending = killed_by(SIGKILL);
  ending.stream = absl::DataLossError("no event");
  EXPECT_EQ(classify_engine_ending(ending)->failure_class(), v1::FAILURE_CLASS_INTERNAL);
}

TEST(FailureTable, StatusesOfStoreAndDatabaseHaveClassesAndNoPosition) {
  const std::pair<absl::Status, v1::FailureClass> rows[] = {
      {absl::InvalidArgumentError("x"), v1::FAILURE_CLASS_CALLER},
      {absl::ResourceExhaustedError("x"), v1::FAILURE_CLASS_RESOURCE},
      {absl::UnavailableError("x"), v1::FAILURE_CLASS_INFRASTRUCTURE},
      {absl::NotFoundError("x"), v1::FAILURE_CLASS_INFRASTRUCTURE},
      {absl::PermissionDeniedError("x"), v1::FAILURE_CLASS_INFRASTRUCTURE},
      {absl::UnknownError("x"), v1::FAILURE_CLASS_INFRASTRUCTURE},
      {absl::InternalError("x"), v1::FAILURE_CLASS_INTERNAL},
      {absl::AlreadyExistsError("x"), v1::FAILURE_CLASS_INTERNAL},
  };
  for (const auto& [status, failure_class] : rows) {
    const v1::Failure failure = classify_status(status);
    EXPECT_EQ(failure.failure_class(), failure_class) << status;
    EXPECT_EQ(failure.code(), absl::StatusCodeToString(status.code()));
    EXPECT_EQ(failure.message(), "x");
    EXPECT_EQ(failure.position(), "");
  }
}

TEST(FailureTable, PositionSaysHowFarAJobGot) {
  v1::Progress progress;
  progress.set_phase(v1::PHASE_LOADING);
  EXPECT_EQ(position_of(progress), "loading");
  progress.set_phase(v1::PHASE_BLOCK_TRAINING);
  progress.set_block(0);
  progress.set_block_count(4);
  progress.set_step(17);
  progress.set_step_count(100);
  EXPECT_EQ(position_of(progress), "block_training block 0 step 17");
}

}  // namespace
}  // namespace qaas
