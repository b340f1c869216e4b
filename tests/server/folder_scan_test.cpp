#include "server/folder_scan.h"

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace qaas {
namespace {

using ::qaas::testing::StatusIs;
using ::qaas::testing::TemporaryFolder;
using ::testing::HasSubstr;

std::string fingerprint(const TemporaryFolder& root) {
  const auto folders = scan_root(root.path());
  EXPECT_THAT(folders, ::qaas::testing::IsOk());
  EXPECT_EQ(folders->size(), 1U);
  return folders->front().fingerprint;
}

TEST(FolderScan, FingerprintFollowsNamesSizesAndTimes) {
  TemporaryFolder root;
  std::filesystem::create_directory(root / "m");
  root.write("m/a", "1");
  const std::string first = fingerprint(root);
  EXPECT_EQ(fingerprint(root), first);
  const auto time = std::filesystem::last_write_time(root / "m/a");
  std::filesystem::last_write_time(root / "m/a", time + std::chrono::milliseconds(1));
  EXPECT_NE(fingerprint(root), first);
  std::filesystem::last_write_time(root / "m/a", time);
  EXPECT_EQ(fingerprint(root), first);
  root.write("m/.hidden", "ignored");
  EXPECT_EQ(fingerprint(root), first);
  std::filesystem::rename(root / "m/a", root / "m/b");
  EXPECT_NE(fingerprint(root), first);
}

TEST(FolderScan, LinksThatStayInsideTheRootCount) {
  TemporaryFolder root;
  TemporaryFolder outside;
  std::filesystem::create_directory(root / "m");
  std::filesystem::create_directory_symlink(root / "m", root / "alias");
  std::filesystem::create_directory_symlink(outside.path(), root / "escape");
  std::filesystem::create_directory_symlink(root.path(), root / "loop");
  std::filesystem::create_directory_symlink(root / "none", root / "dangling");
  const auto folders = scan_root(root.path());
  ASSERT_THAT(folders, ::qaas::testing::IsOk());
  ASSERT_EQ(folders->size(), 2U);
  EXPECT_EQ((*folders)[0].name, "alias");
  EXPECT_EQ((*folders)[1].name, "m");
}

TEST(FolderScan, MissingRootIsAnError) {
  TemporaryFolder root;
  EXPECT_THAT(scan_root(root / "none"),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("none")));
}

TEST(FolderScan, DatasetNeedsANonEmptyTextFile) {
  TemporaryFolder folder;
  EXPECT_THAT(inspect_dataset(folder.path()).problem, HasSubstr("no .txt"));
  folder.write("notes.md", "text");
  EXPECT_THAT(inspect_dataset(folder.path()).problem, HasSubstr("no .txt"));
  folder.write("a.txt", "");
  EXPECT_THAT(inspect_dataset(folder.path()).problem, HasSubstr("empty"));
  folder.write("b.jsonl", "{}");
  EXPECT_EQ(inspect_dataset(folder.path()).problem, "");
}

}  // namespace
}  // namespace qaas
