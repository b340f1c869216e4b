#include "workers/engine/exporters/artifact_files.h"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include <absl/cleanup/cleanup.h>
#include <absl/strings/str_cat.h>

namespace qaas {
namespace {

absl::Status write_and_sync(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, "write");
    text.remove_prefix(static_cast<size_t>(written));
  }
  if (fsync(descriptor) != 0) return absl::ErrnoToStatus(errno, "fsync");
  return absl::OkStatus();
}

}  // namespace

absl::Status write_file(const std::filesystem::path& path, std::string_view text) {
  const auto failed = [&path](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat(path.string(), ": ", status.message()));
  };
  // A hidden name, so that no reader of the folder takes the unfinished file for a part of it.
  std::string temporary =
      path.parent_path() / absl::StrCat(".", path.filename().string(), ".XXXXXX");
  const int descriptor = mkostemp(temporary.data(), O_CLOEXEC);
  if (descriptor < 0) return failed(absl::ErrnoToStatus(errno, "create"));
  absl::Cleanup remove_temporary = [&temporary] { unlink(temporary.c_str()); };
  absl::Status written = write_and_sync(descriptor, text);
  // mkostemp gives 0600; an artifact is for everyone whom the folder lets in.
  if (written.ok() && fchmod(descriptor, 0644) != 0) written = absl::ErrnoToStatus(errno, "chmod");
  if (close(descriptor) != 0 && written.ok()) written = absl::ErrnoToStatus(errno, "close");
  if (!written.ok()) return failed(written);
  if (rename(temporary.c_str(), path.c_str()) != 0) {
    return failed(absl::ErrnoToStatus(errno, "rename"));
  }
  std::move(remove_temporary).Cancel();
  return absl::OkStatus();
}

}  // namespace qaas
