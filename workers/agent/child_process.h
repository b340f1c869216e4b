#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <sys/types.h>
#include <vector>

#include <absl/status/statusor.h>

#include "storage/artifacts/file_descriptor.h"
#include "workers/agent/failure_table.h"

namespace qaas {

/// The descriptor on which a child finds its event pipe.
inline constexpr int kChildEventsDescriptor = 3;

/// A program run as a child in a process group of its own, with stdin closed off, stdout and stderr
/// in one pipe, and an event pipe on kChildEventsDescriptor; it inherits no other descriptor, no
/// signal mask, and no environment variable that may hold a database password (those that begin
/// with "PG", and the server's QAAS_DATABASE). It is killed with SIGKILL when the thread that
/// spawned it ends: spawn from one that lives as long as the program. Thread-safe but for spawn and
/// wait, which belong to one thread each.
class ChildProcess {
 public:
  /// Runs `arguments[0]`, a path, with these arguments, in `folder`. No shell. kNotFound,
  /// kPermissionDenied or kUnavailable when it cannot be run, kResourceExhausted when the machine
  /// has no process, descriptor or memory left.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> spawn(
      const std::vector<std::string>& arguments, const std::filesystem::path& folder);

  /// Kills and reaps what still runs.
  ~ChildProcess();

  pid_t id() const { return id_; }

  /// Reading ends. End of file comes after the child has ended.
  int events() const { return events_.get(); }
  int output() const { return output_.get(); }

  /// Sends `signal` to the child's process group; nothing once wait has returned.
  void signal_group(int signal);

  /// Blocks until the child has ended, kills what is left of its group, and reaps it.
  ProcessEnd wait();

 private:
  ChildProcess(pid_t id, FileDescriptor events, FileDescriptor output);

  const pid_t id_;
  FileDescriptor events_;
  FileDescriptor output_;
  std::mutex mutex_;  // held while signalling, so that a reaped id is never signalled
  bool reaped_ = false;
  ProcessEnd end_;
};

}  // namespace qaas
