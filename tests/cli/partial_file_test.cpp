#include "clients/cli/partial_file.h"

#include <filesystem>
#include <stdlib.h>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace qaas::cli {
namespace {

using ::qaas::testing::IsOk;
using ::qaas::testing::read_file;
using ::qaas::testing::StatusIs;
using ::qaas::testing::TemporaryFolder;
using ::testing::HasSubstr;

constexpr int64_t kPlenty = 1 << 20;
// printf abc | sha256sum
constexpr char kDigestOfAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

class PartialFileTest : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) { folder_.write(name, text); }
  std::string read(const std::string& name) { return read_file(folder_ / name); }

  TemporaryFolder folder_;
};

TEST_F(PartialFileTest, HasItsNameOnlyOncePublished) {
  QAAS_ASSERT_OK_AND_ASSIGN(PartialFile file, PartialFile::open(folder_.path(), "f", kPlenty));
  ASSERT_THAT(file.append("ab"), IsOk());
  ASSERT_THAT(file.append("c"), IsOk());
  EXPECT_FALSE(std::filesystem::exists(folder_ / "f"));
  EXPECT_EQ(file.sha256(), kDigestOfAbc);
  ASSERT_THAT(file.publish(), IsOk());
  EXPECT_EQ(read("f"), "abc");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "f.partial"));
}

TEST_F(PartialFileTest, ContinuesWhatAnEarlierRunLeft) {
  write("f.partial", "ab");
  QAAS_ASSERT_OK_AND_ASSIGN(PartialFile file, PartialFile::open(folder_.path(), "f", kPlenty));
  EXPECT_EQ(file.size(), 2);
  ASSERT_THAT(file.append("c"), IsOk());
  EXPECT_EQ(file.sha256(), kDigestOfAbc);
}

TEST_F(PartialFileTest, BeginsAnewWhereTheRestIsTooLong) {
  write("f.partial", "something longer");
  QAAS_ASSERT_OK_AND_ASSIGN(PartialFile file, PartialFile::open(folder_.path(), "f", 3));
  EXPECT_EQ(file.size(), 0);
  ASSERT_THAT(file.append("abc"), IsOk());
  EXPECT_EQ(file.sha256(), kDigestOfAbc);
  ASSERT_THAT(file.publish(), IsOk());
  EXPECT_EQ(read("f"), "abc");
}

TEST_F(PartialFileTest, NeverOverwritesAFile) {
  QAAS_ASSERT_OK_AND_ASSIGN(PartialFile file, PartialFile::open(folder_.path(), "f", kPlenty));
  ASSERT_THAT(file.append("abc"), IsOk());
  write("f", "precious");
  EXPECT_THAT(file.publish(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("'f'")));
  EXPECT_EQ(read("f"), "precious");
}

TEST_F(PartialFileTest, FollowsNoSymlink) {
  write("victim", "precious");
  std::filesystem::create_symlink(folder_ / "victim", folder_ / "f.partial");
  EXPECT_THAT(PartialFile::open(folder_.path(), "f", 0),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("f.partial")));
  EXPECT_EQ(read("victim"), "precious");
}

TEST_F(PartialFileTest, TwoDownloadsNeverShareAFile) {
  QAAS_ASSERT_OK_AND_ASSIGN(const PartialFile first,
                            PartialFile::open(folder_.path(), "f", kPlenty));
  EXPECT_THAT(PartialFile::open(folder_.path(), "f", kPlenty),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("another download")));
}

TEST_F(PartialFileTest, DigestsOfFilesTellMissingFromUnreadable) {
  write("f", "abc");
  QAAS_ASSERT_OK_AND_ASSIGN(const std::string digest, sha256_of_file(folder_ / "f"));
  EXPECT_EQ(digest, kDigestOfAbc);
  EXPECT_THAT(sha256_of_file(folder_ / "absent"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("absent")));
  EXPECT_THAT(sha256_of_file(folder_.path()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("directory")));
}

}  // namespace
}  // namespace qaas::cli
