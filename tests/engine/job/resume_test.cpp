#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "tests/engine/job/job_fixture.h"

namespace qaas {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::RunLog;
using testing::StatusIs;
using testing::tiny_spec;

class Resume : public testing::JobTest {
 protected:
  Resume() { EXPECT_THAT(run(tiny_spec(), "whole", &whole_), IsOk()); }

  /// Runs the job until checkpoint `file` is written, then stops it.
  void stop_after(const std::string& file, const std::string& name) const {
    std::stop_source stop;
    v1::Job job;
    *job.mutable_spec() = tiny_spec();
    const auto status = run_job(
        job, folders(name),
        [&](const v1::EngineEvent& event) {
          if (event.checkpoint_written().file() == file) stop.request_stop();
        },
        stop.get_token());
    ASSERT_THAT(status, StatusIs(absl::StatusCode::kCancelled, HasSubstr("stopped")));
    ASSERT_FALSE(std::filesystem::exists(folders(name).out / "manifest.json"));
  }

  RunLog whole_;
};

TEST_F(Resume, AfterTheFirstBlockTrainsTheRestAndGivesTheSameBytes) {
  stop_after("block-0000.safetensors", "a");
  RunLog log;
  ASSERT_THAT(run(tiny_spec(), "a", &log), IsOk());
  EXPECT_THAT(log.trained_blocks, ElementsAre(1, 2));
  EXPECT_THAT(log.warnings, IsEmpty());
  EXPECT_TRUE(weights("a") == weights("whole"));
}

TEST_F(Resume, AfterTheLastBlockTrainsOnlyScalesAndGivesTheSameBytes) {
  stop_after("block-0002.safetensors", "a");
  RunLog log;
  ASSERT_THAT(run(tiny_spec(), "a", &log), IsOk());
  EXPECT_THAT(log.trained_blocks, IsEmpty());
  EXPECT_TRUE(weights("a") == weights("whole"));
}

TEST_F(Resume, AfterEndToEndTrainingTrainsNothingAndGivesTheSameBytes) {
  std::filesystem::remove_all(folders("whole").out / "model.safetensors");
  std::filesystem::rename(folders("whole").checkpoints, folders("a").checkpoints);
  RunLog log;
  ASSERT_THAT(run(tiny_spec(), "a", &log), IsOk());
  EXPECT_THAT(log.trained_blocks, IsEmpty());
  EXPECT_THAT(log.checkpoints, IsEmpty());
  ASSERT_THAT(run(tiny_spec(), "b"), IsOk());
  EXPECT_TRUE(weights("a") == weights("b"));
}

TEST_F(Resume, AttemptsThatTrainNothingScoreEveryStageAllTheSame) {
  RunLog log;
  ASSERT_THAT(run(tiny_spec(), "whole", &log), IsOk());
  ASSERT_THAT(log.trained_blocks, IsEmpty());
  const v1::Evaluation& first = whole_.evaluation;
  ASSERT_EQ(log.evaluation.stages_size(), 2);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(log.evaluation.stages(i).stage(), first.stages(i).stage());
    EXPECT_EQ(log.evaluation.stages(i).score().loss(), first.stages(i).score().loss());
    EXPECT_EQ(log.evaluation.stages(i).seconds(), 0);  // of this attempt
  }
}

TEST_F(Resume, CheckpointsOfAnotherHostAreUsedAndTheManifestSaysSo) {
  const auto host = [&](const std::string& name) {
    return nlohmann::json::parse(testing::read_file(folders(name).out / "manifest.json"))
        .at("host");
  };
  EXPECT_FALSE(host("whole").contains("resumed_from_other_host"));
  at::set_num_threads(2);
  RunLog log;
  ASSERT_THAT(run(tiny_spec(), "whole", &log), IsOk());
  EXPECT_THAT(log.trained_blocks, IsEmpty());
  EXPECT_THAT(log.warnings, ElementsAre(HasSubstr("other threads")));
  EXPECT_EQ(host("whole").at("resumed_from_other_host"), true);
}

TEST_F(Resume, AnEndToEndStageThatWasLeftHalfDoneStartsAgain) {
  stop_after("block-0002.safetensors", "a");
  std::filesystem::copy_file(folders("whole").checkpoints / "end-to-end-0000.safetensors",
                             folders("a").checkpoints / "end-to-end-0000.safetensors");
  RunLog log;
  ASSERT_THAT(run(tiny_spec(), "a", &log), IsOk());
  EXPECT_THAT(log.checkpoints,
              ElementsAre("end-to-end-0000.safetensors", "end-to-end-0001.safetensors",
                          "end-to-end-0002.safetensors"));
  EXPECT_TRUE(weights("a") == weights("whole"));
}

TEST_F(Resume, ADamagedCheckpointIsTrainedAgainWithAWarning) {
  stop_after("block-0001.safetensors", "a");
  const std::filesystem::path damaged = folders("a").checkpoints / "block-0000.safetensors";
  std::filesystem::resize_file(damaged, std::filesystem::file_size(damaged) / 2);
  RunLog log;
  ASSERT_THAT(run(tiny_spec(), "a", &log), IsOk());
  EXPECT_THAT(log.trained_blocks, ElementsAre(0, 2));
  EXPECT_THAT(log.warnings, ElementsAre(HasSubstr("block-0000.safetensors")));
  EXPECT_TRUE(weights("a") == weights("whole"));
}

TEST_F(Resume, ADamagedEndToEndCheckpointIsTrainedAgainWithAWarning) {
  const std::filesystem::path damaged =
      folders("whole").checkpoints / "end-to-end-0001.safetensors";
  std::filesystem::resize_file(damaged, 100);
  const std::string before = weights("whole");
  RunLog log;
  ASSERT_THAT(run(tiny_spec(), "whole", &log), IsOk());
  EXPECT_THAT(log.trained_blocks, IsEmpty());
  EXPECT_THAT(log.warnings, ElementsAre(HasSubstr("end-to-end-0001.safetensors")));
  EXPECT_TRUE(weights("whole") == before);
}

TEST_F(Resume, CheckpointsOfAnotherSpecAreNotUsed) {
  v1::JobSpec other = tiny_spec();
  other.mutable_block_ap()->set_weight_learning_rate(2e-3);
  std::filesystem::copy(folders("whole").checkpoints, folders("a").checkpoints);
  RunLog log;
  ASSERT_THAT(run(other, "a", &log), IsOk());
  EXPECT_THAT(log.trained_blocks, ElementsAre(0, 1, 2));
  EXPECT_EQ(log.checkpoints.size(), 6u);
  EXPECT_FALSE(weights("a") == weights("whole"));
}

TEST_F(Resume, CheckpointsOfOtherDataAreNotUsed) {
  testing::write_ids(folder_ / "calibration", 20 * 16, 96, 77);
  RunLog log;
  ASSERT_THAT(run(tiny_spec(), "whole", &log), IsOk());
  EXPECT_THAT(log.trained_blocks, ElementsAre(0, 1, 2));
}

}  // namespace
}  // namespace qaas
