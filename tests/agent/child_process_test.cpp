#include "workers/agent/child_process.h"

#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <thread>
#include <unistd.h>

#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using ::qaas::testing::StatusIs;
using ::testing::HasSubstr;

std::string read_all(int descriptor) {
  std::string text;
  char buffer[4096];
  for (ssize_t count; (count = ::read(descriptor, buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<size_t>(count));
  }
  return text;
}

absl::StatusOr<std::unique_ptr<ChildProcess>> shell(const std::string& script) {
  return ChildProcess::spawn({"/bin/sh", "-c", script}, "/");
}

TEST(ChildProcess, ReportsItsExitCode) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto child, shell("exit 42"));
  const ProcessEnd end = child->wait();
  EXPECT_EQ(end.exit_code, 42);
  EXPECT_EQ(end.signal, 0);
}

TEST(ChildProcess, ReportsTheSignalThatKilledIt) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto child, shell("kill -SEGV $$"));
  EXPECT_EQ(child->wait().signal, SIGSEGV);
}

TEST(ChildProcess, HasStdoutAndStderrInOnePipeAndEventsInAnother) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto child, shell("echo out; echo err >&2; echo event >&3; pwd"));
  EXPECT_EQ(read_all(child->output()), "out\nerr\n/\n");
  EXPECT_EQ(read_all(child->events()), "event\n");
  child->wait();
}

TEST(ChildProcess, InheritsNothingElse) {
  const FileDescriptor null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const FileDescriptor secret(::fcntl(null.get(), F_DUPFD, 20));  // not close-on-exec
  ::setenv("PGPASSWORD", "secret", 1);
  ::setenv("QAAS_DATABASE", "password=secret", 1);
  ::setenv("QAAS_OTHER", "kept", 1);
  sigset_t blocked, before;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
  const auto child = shell(
      "cd /proc/self/fd; for f in *; do [ -e $f ] && echo $f; done; echo "
      "\"$PGPASSWORD$QAAS_DATABASE$QAAS_OTHER\"; "
      "grep SigBlk /proc/self/status; cat");
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::unsetenv("PGPASSWORD");
  ::unsetenv("QAAS_DATABASE");
  ASSERT_TRUE(child.ok()) << child.status();
  const std::string output = read_all((*child)->output());
  EXPECT_THAT(output, ::testing::StartsWith("0\n1\n2\n3\nkept\n"));
  EXPECT_THAT(output, HasSubstr("SigBlk:\t0000000000000000\n"));
  EXPECT_EQ((*child)->wait().exit_code, 0) << "cat ends at once: stdin is empty";
}

TEST(ChildProcess, AProgramThatCannotRunIsAnError) {
  EXPECT_THAT(ChildProcess::spawn({"/no/such/program"}, "/"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/program")));
  EXPECT_THAT(ChildProcess::spawn({"/etc/passwd"}, "/"),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("/etc/passwd")));
}

TEST(ChildProcess, SignalsReachTheWholeGroup) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto child, shell("sh -c 'echo ready; sleep 1000' & wait"));
  char byte;
  ASSERT_EQ(::read(child->output(), &byte, 1), 1);
  child->signal_group(SIGTERM);
  EXPECT_EQ(child->wait().signal, SIGTERM);
  EXPECT_EQ(read_all(child->output()), "eady\n") << "reads to the end: the grandchild is gone too";
}

TEST(ChildProcess, AGrandchildDoesNotOutliveTheChild) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto child, shell("sleep 1000 & exit 0"));
  EXPECT_EQ(child->wait().exit_code, 0);
  EXPECT_EQ(read_all(child->output()), "");
}

TEST(ChildProcess, IsKilledWhenItIsNoLongerWanted) {
  pid_t id;
  {
    QAAS_ASSERT_OK_AND_ASSIGN(const auto child, shell("trap '' TERM; sleep 1000"));
    id = child->id();
  }
  EXPECT_NE(::kill(id, 0), 0);
}

TEST(ChildProcess, DiesWithTheThreadThatSpawnedIt) {
  std::unique_ptr<ChildProcess> child;
  std::thread([&] {
    auto spawned = shell("sleep 1000");
    ASSERT_TRUE(spawned.ok()) << spawned.status();
    child = std::move(*spawned);
  }).join();
  EXPECT_EQ(child->wait().signal, SIGKILL);
}

TEST(ChildProcess, SignallingAReapedChildDoesNothing) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto child, shell("exit 0"));
  child->wait();
  child->signal_group(SIGKILL);
  EXPECT_EQ(child->wait().exit_code, 0);
}

}  // namespace
}  // namespace qaas
