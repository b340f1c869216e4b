#include "storage/checkpoint/scratch_mapping.h"

#include <algorithm>
#include <csignal>
#include <fstream>
#include <string>
#include <sys/resource.h>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace qaas {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TemporaryFolder;

/// A field of /proc/self/status, kB.
int64_t status_kilobytes(const std::string& field) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(field + ":")) return std::stoll(line.substr(field.size() + 1));
  }
  ADD_FAILURE() << field << " not found";
  return 0;
}

TEST(ScratchMapping, HoldsWhatIsWrittenAndLeavesNoFileBehind) {
  const TemporaryFolder folder;
  constexpr int64_t kBytes = (1 << 20) + 5;
  QAAS_ASSERT_OK_AND_ASSIGN(const std::shared_ptr<std::byte> memory,
                            map_scratch_file(folder / "made/on/demand", kBytes));
  EXPECT_TRUE(std::filesystem::is_empty(folder / "made/on/demand"));
  EXPECT_TRUE(std::all_of(memory.get(), memory.get() + kBytes,
                          [](std::byte value) { return value == std::byte{0}; }));
  std::fill(memory.get(), memory.get() + kBytes, std::byte{7});
  EXPECT_EQ(memory.get()[kBytes - 1], std::byte{7});
}

TEST(ScratchMapping, IsNotAnonymousMemory) {
  const TemporaryFolder folder;
  constexpr int64_t kBytes = 64 << 20;
  const int64_t before = status_kilobytes("RssAnon");
  QAAS_ASSERT_OK_AND_ASSIGN(const std::shared_ptr<std::byte> in_file,
                            map_scratch_file(folder.path(), kBytes));
  std::fill(in_file.get(), in_file.get() + kBytes, std::byte{1});
  EXPECT_LT(status_kilobytes("RssAnon") - before, 8 << 10);
  {
    QAAS_ASSERT_OK_AND_ASSIGN(const std::shared_ptr<std::byte> in_memory, map_anonymous(kBytes));
    std::fill(in_memory.get(), in_memory.get() + kBytes, std::byte{1});
    EXPECT_GE(status_kilobytes("RssAnon") - before, 64 << 10);
  }
  EXPECT_LT(status_kilobytes("RssAnon") - before, 8 << 10);
}

// A limit on the size of files stands in for a full disk: both end the allocation of blocks.
TEST(ScratchMapping, WhatTheDiskCannotHoldIsAnErrorNotASignal) {
  const TemporaryFolder folder;
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  rlimit small = limit;
  small.rlim_cur = 1 << 20;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto memory = map_scratch_file(folder.path(), 2 << 20);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::signal(SIGXFSZ, previous);
  EXPECT_THAT(memory, StatusIs(absl::StatusCode::kResourceExhausted,
                               AllOf(HasSubstr("2097152 bytes"), HasSubstr(folder.path()))));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(ScratchMapping, AFolderThatIsAFileIsNamed) {
  const TemporaryFolder folder;
  const auto path = folder.write("file", "x");
  const auto memory = map_scratch_file(path, 10);
  ASSERT_FALSE(memory.ok());
  EXPECT_THAT(std::string(memory.status().message()), HasSubstr(path.string()));
}

}  // namespace
}  // namespace qaas
