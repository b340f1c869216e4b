#include "workers/agent/child_process.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include "storage/artifacts/file_copy.h"

namespace qaas {
namespace {

struct Pipe {
  FileDescriptor reading;
  FileDescriptor writing;
};

/// A pipe whose ends are close-on-exec and numbered above the descriptors a child is given, so that
/// dup2 in the child never overwrites one that is still needed.
absl::StatusOr<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return io_error(errno, "cannot make a pipe for the engine");
  }
  const FileDescriptor low_reading(ends[0]);
  const FileDescriptor low_writing(ends[1]);
  Pipe pipe{FileDescriptor(::fcntl(ends[0], F_DUPFD_CLOEXEC, kChildEventsDescriptor + 1)),
            FileDescriptor(::fcntl(ends[1], F_DUPFD_CLOEXEC, kChildEventsDescriptor + 1))};
  if (!pipe.reading.is_open() || !pipe.writing.is_open()) {
    return io_error(errno, "cannot make a pipe for the engine");
  }
  return pipe;
}

std::vector<char*> pointers_to(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& text : strings) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<std::string> environment_for_child() {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!absl::StartsWith(*variable, "PG") && !absl::StartsWith(*variable, "QAAS_DATABASE=")) {
      variables.push_back(*variable);
    }
  }
  return variables;
}

/// Everything the child needs between fork and exec, made before the fork: of what happens after it
/// only async-signal-safe calls are allowed.
struct Launch {
  std::vector<char*> arguments;
  std::vector<char*> environment;
  const char* folder;
  int null;
  int output;
  int events;
  int error;  ///< gets errno if the program cannot be run
  pid_t parent;
};

void close_on_exec_from(int first) {
  if (::close_range(static_cast<unsigned>(first), ~0U, CLOSE_RANGE_CLOEXEC) == 0) {
    return;
  }
  // Kernels before 5.11.
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const int end = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1 << 20));
  for (int descriptor = first; descriptor < end; ++descriptor) {
    ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);
  }
}

[[noreturn]] void become_program(const Launch& launch) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != launch.parent) {
    ::_exit(127);  // the parent died before the line above could notice
  }
  struct sigaction standard = {};
  standard.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) {
    ::sigaction(signal, &standard, nullptr);
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (::dup2(launch.null, STDIN_FILENO) >= 0 && ::dup2(launch.output, STDOUT_FILENO) >= 0 &&
      ::dup2(launch.output, STDERR_FILENO) >= 0 &&
      ::dup2(launch.events, kChildEventsDescriptor) >= 0 && ::chdir(launch.folder) == 0) {
    close_on_exec_from(kChildEventsDescriptor + 1);
    ::execve(launch.arguments[0], launch.arguments.data(), launch.environment.data());
  }
  const int error = errno;
  if (::write(launch.error, &error, sizeof error) != sizeof error) {
    ::_exit(126);
  }
  ::_exit(127);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::spawn(
    const std::vector<std::string>& arguments, const std::filesystem::path& folder) {
  std::vector<std::string> argument_texts = arguments;
  std::vector<std::string> environment_texts = environment_for_child();
  auto events = make_pipe();
  auto output = make_pipe();
  auto error = make_pipe();
  const FileDescriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const auto* pipe : {&events, &output, &error}) {
    if (!pipe->ok()) {
      return pipe->status();
    }
  }
  if (!null.is_open()) {
    return io_error(errno, "cannot open /dev/null");
  }
  const Launch launch{.arguments = pointers_to(argument_texts),
                      .environment = pointers_to(environment_texts),
                      .folder = folder.c_str(),
                      .null = null.get(),
                      .output = output->writing.get(),
                      .events = events->writing.get(),
                      .error = error->writing.get(),
                      .parent = ::getpid()};
  const pid_t id = ::fork();
  if (id == 0) {
    become_program(launch);
  }
  if (id < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot start another process: ", std::strerror(errno)));
  }
  events->writing.reset();
  output->writing.reset();
  error->writing.reset();
  // End of file: the program runs. Otherwise the child reports why it does not.
  int reason = 0;
  ssize_t count;
  do {
    count = ::read(error->reading.get(), &reason, sizeof reason);
  } while (count < 0 && errno == EINTR);
  std::unique_ptr<ChildProcess> child(
      new ChildProcess(id, std::move(events->reading), std::move(output->reading)));
  if (count == sizeof reason) {
    return io_error(reason, absl::StrCat("cannot run '", arguments[0], "'"));
  }
  return child;
}

ChildProcess::ChildProcess(pid_t id, FileDescriptor events, FileDescriptor output)
    : id_(id), events_(std::move(events)), output_(std::move(output)) {}

ChildProcess::~ChildProcess() {
  signal_group(SIGKILL);
  wait();
}

void ChildProcess::signal_group(int signal) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!reaped_) {
    ::kill(-id_, signal);
  }
}

ProcessEnd ChildProcess::wait() {
  if (reaped_) {
    return end_;
  }
  // Waits without reaping: until it is reaped the id belongs to the group and can be signalled.
  siginfo_t info = {};
  while (::waitid(P_PID, static_cast<id_t>(id_), &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  ::kill(-id_, SIGKILL);
  int status = 0;
  while (::waitpid(id_, &status, 0) < 0 && errno == EINTR) {
  }
  reaped_ = true;
  if (WIFSIGNALED(status)) {
    end_.signal = WTERMSIG(status);
  } else {
    end_.exit_code = WEXITSTATUS(status);
  }
  return end_;
}

}  // namespace qaas
