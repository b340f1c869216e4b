#include "storage/checkpoint/digest.h"

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace qaas {
namespace {

using ::qaas::testing::StatusIs;
using ::qaas::testing::TemporaryFolder;
using ::testing::HasSubstr;

// Of sha256sum.
constexpr char kEmpty[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr char kAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr char kMillionA[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Digest, OfAFileIsSha256) {
  const TemporaryFolder folder;
  EXPECT_EQ(*sha256_file(folder.write("empty", "")), kEmpty);
  EXPECT_EQ(*sha256_file(folder.write("abc", "abc")), kAbc);
  EXPECT_EQ(*sha256_file(folder.write("a", std::string(1'000'000, 'a'))), kMillionA);
}

TEST(Digest, OfAFileLargerThanOneChunkDependsOnItsLastByte) {
  const TemporaryFolder folder;
  std::string bytes(3'000'001, 'x');
  const auto first = sha256_file(folder.write("f", bytes));
  bytes.back() = 'y';
  EXPECT_NE(*first, *sha256_file(folder.write("f", bytes)));
}

TEST(Digest, OfAFolderIsThatOfItsSortedList) {
  const TemporaryFolder folder;
  folder.write("b", "abc");
  folder.write("a", "");
  const TemporaryFolder list;
  const auto expected =
      sha256_file(list.write("list", std::string("a\n0\n") + kEmpty + "\nb\n3\n" + kAbc + "\n"));
  EXPECT_EQ(*sha256_folder(folder.path()), *expected);
}

TEST(Digest, OfAFolderLeavesOutHiddenFilesAndFolders) {
  const TemporaryFolder folder;
  folder.write("a", "1");
  const auto before = sha256_folder(folder.path());
  folder.write(".hidden", "2");
  std::filesystem::create_directory(folder / "sub");
  folder.write("sub/c", "3");
  EXPECT_EQ(*sha256_folder(folder.path()), *before);
}

TEST(Digest, OfAFolderChangesWithNameAndContent) {
  const TemporaryFolder folder;
  folder.write("a", "1");
  const auto before = sha256_folder(folder.path());
  folder.write("a", "2");
  const auto content = sha256_folder(folder.path());
  std::filesystem::rename(folder / "a", folder / "b");
  const auto name = sha256_folder(folder.path());
  EXPECT_NE(*before, *content);
  EXPECT_NE(*content, *name);
}

TEST(Digest, OfAFolderRefusesASymlinkThatLeavesIt) {
  const TemporaryFolder folder;
  const TemporaryFolder outside;
  std::filesystem::create_symlink(outside.write("secret", "x"), folder / "link");
  EXPECT_THAT(sha256_folder(folder.path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("leaves the folder")));
}

TEST(Digest, OfAFolderFollowsASymlinkInsideIt) {
  const TemporaryFolder plain;
  plain.write("a", "1");
  plain.write("b", "1");
  const TemporaryFolder linked;
  linked.write("a", "1");
  std::filesystem::create_symlink("a", linked / "b");
  EXPECT_EQ(*sha256_folder(plain.path()), *sha256_folder(linked.path()));
}

TEST(Digest, RefusesANameThatCouldForgeTheList) {
  const TemporaryFolder folder;
  folder.write("a\n0\nb", "1");
  EXPECT_THAT(sha256_folder(folder.path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("control characters")));
}

TEST(Digest, OfWhatIsNotThereIsNotFound) {
  const TemporaryFolder folder;
  EXPECT_THAT(sha256_file(folder / "none"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
  EXPECT_THAT(sha256_file(folder.path()), StatusIs(absl::StatusCode::kNotFound, HasSubstr("file")));
  EXPECT_THAT(sha256_folder(folder / "none"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
}

}  // namespace
}  // namespace qaas
