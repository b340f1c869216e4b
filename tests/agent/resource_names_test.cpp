#include "workers/agent/resource_names.h"

#include "tests/agent/temporary_folder.h"
#include "tests/support/status_matchers.h"

namespace qaas::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ResourceNamesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(root() / "llama");
    fs::create_directories(folder_.path() / "outside");
  }
  fs::path root() const { return folder_.path() / "models"; }
  TemporaryFolder folder_;
};

TEST_F(ResourceNamesTest, ANameStandsForTheFolderBelowTheRoot) {
  QAAS_ASSERT_OK_AND_ASSIGN(const fs::path path,
                            resolve_resource(root(), "models", "models/llama"));
  EXPECT_EQ(path, fs::canonical(root() / "llama"));
}

TEST_F(ResourceNamesTest, NamesOfAnotherFormAreRefused) {
  for (const char* name : {"", "llama", "models/", "models/..", "models/.", "models/../outside",
                           "models/a/b", "models//llama", "/models/llama", "models/-x",
                           "models/.hidden", "models/a b", "datasets/llama", "models/llama/"}) {
    EXPECT_THAT(resolve_resource(root(), "models", name),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'models/NAME'")))
        << name;
  }
}

TEST_F(ResourceNamesTest, ALinkMayLeadElsewhereBelowTheRootButNotOut) {
  fs::create_directory_symlink(root() / "llama", root() / "alias");
  fs::create_directory_symlink(folder_.path() / "outside", root() / "escape");
  fs::create_directory_symlink("/nowhere", root() / "broken");
  EXPECT_THAT(resolve_resource(root(), "models", "models/alias"), IsOk());
  EXPECT_THAT(resolve_resource(root(), "models", "models/escape"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("link out of the models folder")));
  EXPECT_THAT(resolve_resource(root(), "models", "models/broken"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("on this worker")));
}

TEST_F(ResourceNamesTest, AMissingRootIsTheMachinesTrouble) {
  EXPECT_THAT(resolve_resource("/nowhere", "models", "models/llama"),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("models folder")));
}

TEST_F(ResourceNamesTest, ErrorsShowNoPathOfThisMachine) {
  const auto missing = resolve_resource(root(), "models", "models/none");
  EXPECT_THAT(missing, StatusIs(absl::StatusCode::kNotFound, HasSubstr("models/none")));
  EXPECT_THAT(std::string(missing.status().message()),
              ::testing::Not(HasSubstr(folder_.path().string())));
}

}  // namespace
}  // namespace qaas::testing
