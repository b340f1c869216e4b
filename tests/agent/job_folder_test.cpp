#include "workers/agent/job_folder.h"

#include "tests/agent/temporary_folder.h"
#include "tests/support/status_matchers.h"

namespace qaas::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class JobFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(temporary_.path() / "models" / "llama");
    for (const char* name : {"text", "held-out", "web", "code", "arc", "piqa"}) {
      fs::create_directories(datasets() / name);
    }
    spec_.set_model("models/llama");
    spec_.mutable_evaluation()->set_dataset("datasets/held-out");
  }

  fs::path datasets() const { return temporary_.path() / "datasets"; }

  absl::StatusOr<std::vector<std::string>> arguments() const {
    return JobFolder(temporary_.path() / "attempt")
        .engine_arguments(
            spec_,
            {.models = temporary_.path() / "models", .datasets = datasets(), .engine = "/engine"});
  }

  /// The values of `flag`, in order, below the dataset root.
  static std::vector<std::string> values(const std::vector<std::string>& arguments,
                                         const std::string& flag) {
    std::vector<std::string> found;
    for (size_t i = 0; i + 1 < arguments.size(); ++i) {
      if (arguments[i] == flag) found.push_back(fs::path(arguments[i + 1]).filename());
    }
    return found;
  }

  TemporaryFolder temporary_;
  v1::JobSpec spec_;
};

TEST_F(JobFolderTest, GivesTheEngineEveryDatasetInTheSpecsOrder) {
  spec_.mutable_calibration()->set_dataset("datasets/text");
  spec_.add_further_evaluations()->set_dataset("datasets/web");
  spec_.add_further_evaluations()->set_dataset("datasets/code");
  spec_.add_tasks("datasets/piqa");
  spec_.add_tasks("datasets/arc");
  QAAS_ASSERT_OK_AND_ASSIGN(const std::vector<std::string> line, arguments());
  EXPECT_THAT(values(line, "--calibration"), ElementsAre("text"));
  EXPECT_THAT(values(line, "--evaluation"), ElementsAre("held-out"));
  EXPECT_THAT(values(line, "--further-evaluation"), ElementsAre("web", "code"));
  EXPECT_THAT(values(line, "--task"), ElementsAre("piqa", "arc"));
}

TEST_F(JobFolderTest, NamesNoCalibrationFolderForGeneratedText) {
  spec_.mutable_calibration()->mutable_generated();
  QAAS_ASSERT_OK_AND_ASSIGN(const std::vector<std::string> line, arguments());
  EXPECT_THAT(values(line, "--calibration"), IsEmpty());
}

TEST_F(JobFolderTest, RefusesDatasetsThatLeaveTheRoot) {
  spec_.add_tasks("datasets/../models");
  EXPECT_THAT(arguments(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("../models")));
  spec_.clear_tasks();
  fs::create_directory_symlink(temporary_.path() / "models", datasets() / "link");
  spec_.add_further_evaluations()->set_dataset("datasets/link");
  EXPECT_THAT(arguments(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("a link out of")));
}

}  // namespace
}  // namespace qaas::testing
