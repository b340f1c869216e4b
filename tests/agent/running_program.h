#pragma once

#include <csignal>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "tests/support/status_matchers.h"
#include "workers/agent/child_process.h"

namespace qaas::testing {

/// A program of ours that runs as a child process, and what it has said so far. Killed at the end.
class RunningProgram {
 public:
  explicit RunningProgram(const std::vector<std::string>& arguments) {
    auto spawned = ChildProcess::spawn(arguments, "/");
    EXPECT_THAT(spawned, IsOk());
    process_ = std::move(*spawned);
    reader_ = std::thread([this] {
      char buffer[4096];
      for (ssize_t count; (count = ::read(process_->output(), buffer, sizeof buffer)) > 0;) {
        const std::lock_guard<std::mutex> lock(mutex_);
        output_.append(buffer, static_cast<size_t>(count));
      }
    });
  }
  ~RunningProgram() {
    process_->signal_group(SIGKILL);
    process_->wait();
    reader_.join();
  }

  pid_t id() const { return process_->id(); }

  /// To the program alone: children with a process group of their own do not get it.
  void signal(int signal) { ::kill(process_->id(), signal); }
  ProcessEnd wait() { return process_->wait(); }

  /// Stdout and stderr so far.
  std::string output() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return output_;
  }

 private:
  std::unique_ptr<ChildProcess> process_;
  std::mutex mutex_;
  std::string output_;
  std::thread reader_;
};

}  // namespace qaas::testing
