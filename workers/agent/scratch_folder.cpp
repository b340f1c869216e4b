#include "workers/agent/scratch_folder.h"

#include <cerrno>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <system_error>
#include <utility>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include "storage/artifacts/file_copy.h"

namespace qaas {
namespace {

namespace fs = std::filesystem;

constexpr char kPrefix[] = "worker-";

FileDescriptor open_folder(const fs::path& folder) {
  return FileDescriptor(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

void remove_folders_of_the_dead(const fs::path& root) {
  std::error_code error;
  for (fs::directory_iterator entry(root, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!absl::StartsWith(entry->path().filename().string(), kPrefix)) {
      continue;
    }
    const FileDescriptor folder = open_folder(entry->path());
    if (folder.is_open() && ::flock(folder.get(), LOCK_EX | LOCK_NB) == 0) {
      std::error_code ignored;
      fs::remove_all(entry->path(), ignored);
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ScratchFolder>> ScratchFolder::open(const fs::path& root) {
  std::error_code error;
  fs::create_directories(root, error);
  const std::string what = absl::StrCat("scratch folder '", root.string(), "'");
  if (error) {
    return io_error(error.value(), what);
  }
  // One worker at a time comes past here: none removes a folder that is not locked yet.
  const FileDescriptor root_lock = open_folder(fs::canonical(root, error));
  if (!root_lock.is_open() || ::flock(root_lock.get(), LOCK_EX) != 0) {
    return io_error(errno, what);
  }
  remove_folders_of_the_dead(root);
  std::string path = (root / absl::StrCat(kPrefix, "XXXXXX")).string();
  if (::mkdtemp(path.data()) == nullptr) {
    return io_error(errno, what);
  }
  FileDescriptor lock = open_folder(path);
  if (!lock.is_open() || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return io_error(errno, what);
  }
  return std::unique_ptr<ScratchFolder>(new ScratchFolder(path, std::move(lock)));
}

ScratchFolder::ScratchFolder(fs::path path, FileDescriptor lock)
    : path_(std::move(path)), lock_(std::move(lock)) {}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

absl::StatusOr<fs::path> ScratchFolder::make(const std::string& name) {
  std::error_code error;
  fs::remove_all(path_ / name, error);
  if (!error) {
    fs::create_directory(path_ / name, error);
  }
  if (error) {
    return io_error(error.value(), absl::StrCat("scratch folder '", name, "'"));
  }
  return path_ / name;
}

void ScratchFolder::remove(const std::string& name) {
  std::error_code ignored;
  fs::remove_all(path_ / name, ignored);
}

}  // namespace qaas
