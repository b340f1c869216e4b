#include "workers/engine/job/available_memory.h"

#include <limits>
#include <string>

#include "tests/support/temporary_folder.h"

namespace qaas {
namespace {

using testing::TemporaryFolder;

class AvailableMemory : public ::testing::Test {
 protected:
  AvailableMemory() {
    write("proc/meminfo", "MemTotal:  9000 kB\nMemFree: 10 kB\nMemAvailable:  4000 kB\n");
  }
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((root_ / name).parent_path());
    root_.write(name, text);
  }
  TemporaryFolder root_;
};

TEST_F(AvailableMemory, IsWhatTheMachineHasAvailable) {
  EXPECT_EQ(available_memory(root_.path()), 4000 * 1024);
}

TEST_F(AvailableMemory, IsWhatTheTightestGroupLeaves) {
  write("proc/self/cgroup", "0::/outer/inner\n");
  write("sys/fs/cgroup/outer/inner/memory.max", "max\n");
  write("sys/fs/cgroup/outer/inner/memory.current", "1000\n");
  EXPECT_EQ(available_memory(root_.path()), 4000 * 1024);
  write("sys/fs/cgroup/outer/memory.max", "1000000\n");
  write("sys/fs/cgroup/outer/memory.current", "600000\n");
  EXPECT_EQ(available_memory(root_.path()), 400000);
  write("sys/fs/cgroup/outer/memory.stat", "anon 5\ninactive_file 100000\n");
  EXPECT_EQ(available_memory(root_.path()), 500000) << "those pages can be dropped";
}

TEST_F(AvailableMemory, KnowsTheOldGroupsToo) {
  write("proc/self/cgroup", "5:cpu:/a\n4:memory:/a\n0::/\n");
  write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "300000\n");
  write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "500000\n");
  EXPECT_EQ(available_memory(root_.path()), 0);
}

TEST(AvailableMemoryHere, IsANumberOfBytesThatAMachineCanHave) {
  EXPECT_GT(available_memory(), 1 << 20);
  EXPECT_LT(available_memory(), int64_t{1} << 50);
}

}  // namespace
}  // namespace qaas
