#include "workers/engine/job/plan.h"

#include <nlohmann/json.hpp>

#include "tests/engine/job/job_fixture.h"

namespace qaas {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::JobTest;
using testing::StatusIs;
using testing::tiny_rounding_spec;
using testing::tiny_spec;

class PlanTest : public JobTest {
 protected:
  absl::StatusOr<Plan> plan(const v1::JobSpec& spec, const RunLimits& limits = {}) const {
    v1::Job job;
    *job.mutable_spec() = spec;
    return plan_job(job, folders("plan"), limits);
  }
};

TEST_F(PlanTest, ASmallJobFitsAndSaysWhatEachStageTakes) {
  QAAS_ASSERT_OK_AND_ASSIGN(const Plan plan, this->plan(tiny_spec()));
  EXPECT_THAT(check_fits(plan), IsOk());
  EXPECT_GT(plan.limits.memory_bytes, 0);
  EXPECT_EQ(plan.limits.cache_bytes, plan.limits.memory_bytes / 4);
  EXPECT_GT(plan.free_disk_bytes, 0) << "the folder does not exist yet";
  EXPECT_THAT(plan.to_text(), AllOf(HasSubstr("memory, scoring"), HasSubstr("block training"),
                                    HasSubstr("end-to-end training"), HasSubstr("artifact")));
}

TEST_F(PlanTest, JsonHoldsTheSameNumbers) {
  QAAS_ASSERT_OK_AND_ASSIGN(const Plan plan, this->plan(tiny_spec()));
  const auto json = nlohmann::json::parse(plan.to_json());
  EXPECT_EQ(json["memory_bytes"], plan.footprint.memory_bytes);
  EXPECT_EQ(json["disk_bytes"], plan.footprint.disk_bytes);
  EXPECT_EQ(json["stages"].size(), plan.footprint.stages.size());
  EXPECT_EQ(json["fits"], true);
  EXPECT_FALSE(json.contains("seconds"));
}

TEST_F(PlanTest, WhatDoesNotFitIsRefusedWithBothNumbers) {
  QAAS_ASSERT_OK_AND_ASSIGN(const Plan plan, this->plan(tiny_spec(), {.memory_bytes = 7000000}));
  EXPECT_THAT(check_fits(plan),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("memory: the job needs"), HasSubstr("there are 7 MB"),
                             HasSubstr("--memory-limit"))));
  Plan full_disk = *this->plan(tiny_spec());
  full_disk.free_disk_bytes = 1000;
  EXPECT_THAT(check_fits(full_disk),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("disk: the job writes"), HasSubstr("there are 0 MB free"))));
}

TEST_F(PlanTest, WindowsAreBoundedByTheDatasetWhereTheSpecLeavesThemOut) {
  v1::JobSpec spec = tiny_spec();
  spec.mutable_calibration()->clear_samples();
  QAAS_ASSERT_OK_AND_ASSIGN(const Plan plan, this->plan(spec));
  EXPECT_GE(plan.window_tokens, 20 * 16) << "what the dataset holds";
  EXPECT_LE(plan.window_tokens, 4 * 20 * 16);
}

TEST_F(PlanTest, TimeIsMeasuredOnTheModelItself) {
  QAAS_ASSERT_OK_AND_ASSIGN(Plan plan, this->plan(tiny_spec()));
  ASSERT_THAT(estimate_time(plan, folders("plan")), IsOk());
  ASSERT_TRUE(plan.time.has_value());
  EXPECT_GT(plan.time->seconds, 0);
  EXPECT_GT(plan.time->training_rate, 0);
  EXPECT_THAT(plan.to_text(), HasSubstr("tokens/s"));
  QAAS_ASSERT_OK_AND_ASSIGN(Plan rounding, this->plan(tiny_rounding_spec(4, 32)));
  ASSERT_THAT(estimate_time(rounding, folders("plan")), IsOk());
  EXPECT_EQ(rounding.time->training_rate, 0) << "nothing trains";
}

TEST_F(PlanTest, AWrongSpecIsTheCallersFault) {
  v1::JobSpec spec = tiny_spec();
  spec.mutable_weights()->set_bits(5);
  EXPECT_THAT(plan(spec), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("weights.bits")));
}

// Caches of any size give the same artifact: what lies in files is read back as it was.
TEST_F(PlanTest, ARunWhoseCachesAllSpillWritesTheSameArtifact) {
  ASSERT_THAT(run(tiny_spec(), "in_memory"), IsOk());
  v1::Job job;
  *job.mutable_spec() = tiny_spec();
  RunFolders spilled = folders("spilled");
  spilled.cache_bytes = 0;
  ASSERT_THAT(run_job(job, spilled, [](const v1::EngineEvent&) {}, {}), IsOk());
  EXPECT_EQ(weights("spilled"), weights("in_memory"));
}

}  // namespace
}  // namespace qaas
