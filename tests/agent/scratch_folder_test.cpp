#include "workers/agent/scratch_folder.h"

#include "tests/agent/temporary_folder.h"
#include "tests/support/status_matchers.h"

namespace qaas::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST(ScratchFolder, RemovesWhatDeadWorkersLeftAndNothingElse) {
  const TemporaryFolder folder;
  const fs::path root = folder.path() / "scratch";
  fs::create_directories(root / "worker-dead00" / "job-1");
  write_file(root / "worker-dead00" / "job-1" / "cache", "bytes");
  fs::create_directories(root / "notes-of-a-person");
  QAAS_ASSERT_OK_AND_ASSIGN(const auto first, ScratchFolder::open(root));
  EXPECT_FALSE(fs::exists(root / "worker-dead00"));
  EXPECT_TRUE(fs::exists(root / "notes-of-a-person"));

  QAAS_ASSERT_OK_AND_ASSIGN(const auto second, ScratchFolder::open(root));
  EXPECT_TRUE(fs::exists(first->path())) << "its worker lives";
  EXPECT_NE(first->path(), second->path());
}

TEST(ScratchFolder, IsRemovedAtTheEnd) {
  const TemporaryFolder folder;
  fs::path path;
  {
    QAAS_ASSERT_OK_AND_ASSIGN(const auto scratch, ScratchFolder::open(folder.path()));
    path = scratch->path();
    ASSERT_TRUE(fs::is_directory(path));
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST(ScratchFolder, MakesEmptyFolders) {
  const TemporaryFolder folder;
  QAAS_ASSERT_OK_AND_ASSIGN(const auto scratch, ScratchFolder::open(folder.path()));
  QAAS_ASSERT_OK_AND_ASSIGN(const fs::path made, scratch->make("job-1"));
  write_file(made / "left", "over");
  QAAS_ASSERT_OK_AND_ASSIGN(const fs::path again, scratch->make("job-1"));
  EXPECT_EQ(again, made);
  EXPECT_TRUE(fs::is_empty(again));
  scratch->remove("job-1");
  EXPECT_FALSE(fs::exists(made));
}

TEST(ScratchFolder, ARootThatIsAFileIsRefused) {
  EXPECT_THAT(ScratchFolder::open("/dev/null"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/dev/null")));
}

}  // namespace
}  // namespace qaas::testing
