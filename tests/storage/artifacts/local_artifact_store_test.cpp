#include "storage/artifacts/local_artifact_store.h"

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>

#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

namespace fs = std::filesystem;
using ::qaas::testing::IsOk;
using ::qaas::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

// SHA-256 of "hello\n", from sha256sum.
constexpr char kHello[] = "hello\n";
constexpr char kHelloSha256[] = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

class LocalArtifactStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "artifact_store_test.XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    root_ = folder_ / "store";
    QAAS_ASSERT_OK_AND_ASSIGN(store_, open_local_artifact_store(root_));
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path write_file(const std::string& name, const std::string& content) {
    const fs::path path = folder_ / name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  static std::string content_of(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  /// Every file below the store, hidden ones included.
  std::vector<std::string> files_in_store() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(root_)) {
      if (!entry.is_directory()) {
        names.push_back(fs::relative(entry.path(), root_).string());
      }
    }
    return names;
  }

  fs::path folder_;
  fs::path root_;
  std::unique_ptr<ArtifactStore> store_;
};

TEST_F(LocalArtifactStoreTest, PutReportsSizeAndDigestOfWhatItStored) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto stored, store_->put("jobs/j/attempts/1/artifact/config.json",
                                                           write_file("a", kHello)));
  EXPECT_EQ(stored.size_bytes, 6);
  EXPECT_EQ(stored.sha256, kHelloSha256);
  EXPECT_EQ(content_of(root_ / "jobs/j/attempts/1/artifact/config.json"), kHello);
}

TEST_F(LocalArtifactStoreTest, PutLeavesNoTemporaryFile) {
  ASSERT_THAT(store_->put("jobs/j/attempts/1/x", write_file("a", kHello)), IsOk());
  ASSERT_THAT(store_->put("jobs/j/attempts/1/x", write_file("b", "other")),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("written once")));
  EXPECT_THAT(files_in_store(), ElementsAre("jobs/j/attempts/1/x"));
}

TEST_F(LocalArtifactStoreTest, StoringTheSameContentTwiceIsFine) {
  ASSERT_THAT(store_->put("k", write_file("a", kHello)), IsOk());
  QAAS_ASSERT_OK_AND_ASSIGN(const auto again, store_->put("k", write_file("b", kHello)));
  EXPECT_EQ(again.sha256, kHelloSha256);
}

TEST_F(LocalArtifactStoreTest, AKeyIsNeverReplaced) {
  ASSERT_THAT(store_->put("k", write_file("a", kHello)), IsOk());
  EXPECT_THAT(store_->put("k", write_file("b", "HELLO\n")),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("'k'")));
  std::string bytes;
  ASSERT_THAT(store_->read("k", 0, 100, bytes), IsOk());
  EXPECT_EQ(bytes, kHello);
}

TEST_F(LocalArtifactStoreTest, OfTwoWritersOfOneKeyExactlyOneWins) {
  const fs::path a = write_file("a", std::string(1 << 20, 'a'));
  const fs::path b = write_file("b", std::string(1 << 20, 'b'));
  for (int round = 0; round < 20; ++round) {
    const std::string key = "race/" + std::to_string(round);
    absl::Status first, second;
    std::thread other([&] { second = store_->put(key, b).status(); });
    first = store_->put(key, a).status();
    other.join();
    ASSERT_NE(first.ok(), second.ok()) << first << " / " << second;
    std::string bytes;
    ASSERT_THAT(store_->read(key, 0, 2 << 20, bytes), IsOk());
    EXPECT_EQ(bytes, std::string(1 << 20, first.ok() ? 'a' : 'b'));
  }
}

TEST_F(LocalArtifactStoreTest, KeysThatCouldLeaveTheStoreAreRefused) {
  const fs::path file = write_file("a", kHello);
  for (const std::string& key :
       {std::string(""), std::string("/etc/x"), std::string("../x"), std::string("a/../../x"),
        std::string("a//b"), std::string("a/"), std::string("."), std::string("a/./b"),
        std::string(".hidden"), std::string("-rf"), std::string("a b"), std::string("a\\b"),
        std::string("a\nb"), std::string("a\0b", 3), std::string(256, 'a'),
        std::string("\xc3\xa9")}) {
    EXPECT_THAT(store_->put(key, file),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("artifact key")))
        << key;
    std::string bytes;
    EXPECT_THAT(store_->read(key, 0, 1, bytes),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("artifact key")))
        << key;
    EXPECT_THAT(store_->fetch(key, folder_ / "out"),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("artifact key")))
        << key;
    EXPECT_THAT(store_->remove_prefix(key + "/"),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("artifact key")))
        << key;
  }
  EXPECT_THAT(files_in_store(), IsEmpty());
}

TEST_F(LocalArtifactStoreTest, SymbolicLinksInTheStoreAreNotFollowed) {
  const fs::path outside = folder_ / "outside";
  fs::create_directory(outside);
  write_file("outside/secret", "secret");
  fs::create_directory_symlink(outside, root_ / "link");
  fs::create_symlink(outside / "secret", root_ / "object");
  std::string bytes;
  EXPECT_THAT(store_->read("link/secret", 0, 10, bytes),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("link")));
  EXPECT_THAT(store_->read("object", 0, 10, bytes),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("object")));
  EXPECT_THAT(store_->put("link/new", write_file("a", kHello)),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("link")));
  EXPECT_THAT(store_->remove_prefix("link/"), IsOk());
  EXPECT_EQ(content_of(outside / "secret"), "secret");
}

TEST_F(LocalArtifactStoreTest, ReadResumesFromAnyOffset) {
  std::string content;
  for (int i = 0; i < 300000; ++i) {
    content += static_cast<char>(i * 7 % 251);
  }
  ASSERT_THAT(store_->put("k", write_file("a", content)), IsOk());
  std::string joined;
  std::string chunk;
  do {
    ASSERT_THAT(store_->read("k", static_cast<int64_t>(joined.size()), 65536, chunk), IsOk());
    joined += chunk;
  } while (!chunk.empty());
  EXPECT_TRUE(joined == content);
  ASSERT_THAT(store_->read("k", 299999, 10, chunk), IsOk());
  EXPECT_EQ(chunk, content.substr(299999));
  ASSERT_THAT(store_->read("k", 300001, 10, chunk), IsOk());
  EXPECT_EQ(chunk, "");
}

TEST_F(LocalArtifactStoreTest, ReadRefusesNegativePositions) {
  ASSERT_THAT(store_->put("k", write_file("a", kHello)), IsOk());
  std::string bytes;
  EXPECT_THAT(store_->read("k", -1, 10, bytes),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("offset -1")));
  EXPECT_THAT(store_->read("k", 0, -1, bytes),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("size -1")));
}

TEST_F(LocalArtifactStoreTest, MissingObjectsAndFoldersAreNotFound) {
  ASSERT_THAT(store_->put("a/b", write_file("a", kHello)), IsOk());
  std::string bytes;
  for (const char* key : {"a", "a/c", "a/b/c", "x/y"}) {
    EXPECT_THAT(store_->read(key, 0, 1, bytes),
                StatusIs(absl::StatusCode::kNotFound, HasSubstr("artifact")))
        << key;
  }
  EXPECT_THAT(store_->put("k", folder_ / "nowhere"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("'nowhere'")));
}

TEST_F(LocalArtifactStoreTest, FetchReplacesTheLocalFileAndReportsItsDigest) {
  ASSERT_THAT(store_->put("k", write_file("a", kHello)), IsOk());
  const fs::path copy = write_file("copy", "older and longer content");
  QAAS_ASSERT_OK_AND_ASSIGN(const auto fetched, store_->fetch("k", copy));
  EXPECT_EQ(fetched.size_bytes, 6);
  EXPECT_EQ(fetched.sha256, kHelloSha256);
  EXPECT_EQ(content_of(copy), kHello);
}

TEST_F(LocalArtifactStoreTest, ListsAttemptsWithTheirFoldersAndRemovesOneWhole) {
  const fs::path file = write_file("a", kHello);
  EXPECT_THAT(*store_->attempt_prefixes(), IsEmpty());
  ASSERT_THAT(store_->put("jobs/j1/attempts/1/checkpoints/x", file), IsOk());
  ASSERT_THAT(store_->put("jobs/j1/attempts/2/artifact/x", file), IsOk());
  ASSERT_THAT(store_->put("jobs/j2/attempts/1/artifact/x", file), IsOk());
  EXPECT_THAT(*store_->attempt_prefixes(),
              UnorderedElementsAre("jobs/j1/attempts/1/", "jobs/j1/attempts/1/checkpoints/",
                                   "jobs/j1/attempts/2/", "jobs/j1/attempts/2/artifact/",
                                   "jobs/j2/attempts/1/", "jobs/j2/attempts/1/artifact/"));
  EXPECT_THAT(store_->remove_prefix("jobs/j1/attempts/1/"), IsOk());
  EXPECT_THAT(store_->remove_prefix("jobs/j1/attempts/1/"), IsOk()) << "removing nothing is fine";
  EXPECT_THAT(files_in_store(), UnorderedElementsAre("jobs/j1/attempts/2/artifact/x",
                                                     "jobs/j2/attempts/1/artifact/x"));
}

TEST_F(LocalArtifactStoreTest, APrefixWithoutSlashIsRefused) {
  EXPECT_THAT(store_->remove_prefix("jobs/j1/attempts/1"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("must end in '/'")));
}

// The size limit of a process stands in for a full disk: both end a write half-way. In a child
// process, because the limit cannot be raised again for certain.
TEST_F(LocalArtifactStoreTest, AFullDiskIsResourceExhaustedAndLeavesNothingBehind) {
  const fs::path file = write_file("a", std::string(1 << 20, 'x'));
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100000, 100000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const auto stored = store_->put("k", file);
    ::_exit(absl::IsResourceExhausted(stored.status()) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "wait status " << status;
  EXPECT_THAT(files_in_store(), IsEmpty());
}

TEST(OpenLocalArtifactStore, RefusesARootThatIsAFile) {
  EXPECT_THAT(open_local_artifact_store("/dev/null"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/dev/null")));
}

}  // namespace
}  // namespace qaas
