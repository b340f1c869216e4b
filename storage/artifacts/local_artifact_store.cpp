#include "storage/artifacts/local_artifact_store.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <system_error>
#include <utility>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/str_split.h>

#include "storage/artifacts/file_copy.h"

namespace qaas {
namespace {

constexpr size_t kMaxKeyBytes = 1024;
constexpr size_t kMaxPartBytes = 255;

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool is_valid_part(const std::string& part) {
  if (part.empty() || part.size() > kMaxPartBytes || part[0] == '.' || part[0] == '-') {
    return false;
  }
  for (char c : part) {
    if (!is_letter_or_digit(c) && c != '.' && c != '_' && c != '-') {
      return false;
    }
  }
  return true;
}

/// The parts of a valid key.
absl::StatusOr<std::vector<std::string>> split_key(const std::string& key) {
  std::vector<std::string> parts = absl::StrSplit(key, '/');
  bool valid = key.size() <= kMaxKeyBytes;
  for (const std::string& part : parts) {
    valid = valid && is_valid_part(part);
  }
  if (!valid) {
    return absl::InvalidArgumentError(
        absl::StrCat("artifact key '", key.substr(0, kMaxKeyBytes),
                     "': expected parts of letters, digits, '.', '_' and '-' separated by single "
                     "'/', none beginning with '.' or '-', at most ",
                     kMaxKeyBytes, " bytes"));
  }
  return parts;
}

/// A name no other writer of this folder uses: hidden, so that it is never a valid key.
std::string temporary_name() {
  static std::atomic<uint64_t> serial{0};
  char host[64] = "";
  ::gethostname(host, sizeof host - 1);
  return absl::StrCat(".incoming-", host, "-", ::getpid(), "-", serial.fetch_add(1));
}

/// Removes a temporary file unless it is gone already.
class TemporaryName {
 public:
  TemporaryName(int folder, std::string name) : folder_(folder), name_(std::move(name)) {}
  ~TemporaryName() { ::unlinkat(folder_, name_.c_str(), 0); }
  const char* c_str() const { return name_.c_str(); }

 private:
  int folder_;
  std::string name_;
};

/// Names of the folders in `folder` that are valid key parts.
absl::StatusOr<std::vector<std::string>> list_folders(const FileDescriptor& folder,
                                                      const std::string& what) {
  std::vector<std::string> names;
  const int copy = ::openat(folder.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* stream = copy < 0 ? nullptr : ::fdopendir(copy);
  if (stream == nullptr) {
    return io_error(errno, absl::StrCat("cannot list ", what));
  }
  errno = 0;
  while (const dirent* entry = ::readdir(stream)) {
    struct stat status;
    const std::string name = entry->d_name;
    if (is_valid_part(name) &&
        ::fstatat(folder.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISDIR(status.st_mode)) {
      names.push_back(name);
    }
    errno = 0;
  }
  const int error = errno;
  ::closedir(stream);
  if (error != 0) {
    return io_error(error, absl::StrCat("cannot list ", what));
  }
  return names;
}

}  // namespace

LocalArtifactStore::LocalArtifactStore(std::filesystem::path root, FileDescriptor root_folder)
    : root_(std::move(root)), root_folder_(std::move(root_folder)) {}

absl::StatusOr<FileDescriptor> LocalArtifactStore::open_folder(
    const std::vector<std::string>& parts, Missing missing) const {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  FileDescriptor folder(::openat(root_folder_.get(), ".", kFlags));
  if (!folder.is_open()) {
    return io_error(errno, "cannot open the artifact store");
  }
  for (const std::string& part : parts) {
    if (missing == Missing::kCreate && ::mkdirat(folder.get(), part.c_str(), 0755) == 0) {
      if (::fsync(folder.get()) != 0) {
        return io_error(errno, absl::StrCat("cannot sync the folder of '", part, "'"));
      }
    } else if (missing == Missing::kCreate && errno != EEXIST) {
      return io_error(errno, absl::StrCat("cannot create folder '", part, "'"));
    }
    FileDescriptor next(::openat(folder.get(), part.c_str(), kFlags));
    if (!next.is_open()) {
      return io_error(errno, absl::StrCat("artifact folder '", absl::StrJoin(parts, "/"), "'"));
    }
    folder = std::move(next);
  }
  return folder;
}

absl::StatusOr<FileDescriptor> LocalArtifactStore::open_object(const std::string& key) const {
  auto parts = split_key(key);
  if (!parts.ok()) {
    return parts.status();
  }
  const std::string name = parts->back();
  parts->pop_back();
  const auto folder = open_folder(*parts, Missing::kFail);
  if (!folder.ok()) {
    return folder.status();
  }
  // O_NONBLOCK: opening a stray named pipe must not hang.
  FileDescriptor object(
      ::openat(folder->get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (!object.is_open()) {
    return io_error(errno, absl::StrCat("artifact '", key, "'"));
  }
  struct stat status;
  if (::fstat(object.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return absl::NotFoundError(absl::StrCat("artifact '", key, "': not a regular file"));
  }
  return object;
}

absl::StatusOr<ArtifactStore::Stored> LocalArtifactStore::put(const std::string& key,
                                                              const std::filesystem::path& file) {
  auto parts = split_key(key);
  if (!parts.ok()) {
    return parts.status();
  }
  const std::string name = parts->back();
  parts->pop_back();
  const FileDescriptor source(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!source.is_open()) {
    return io_error(errno,
                    absl::StrCat("cannot read '", file.filename().string(), "' to store it"));
  }
  const auto folder = open_folder(*parts, Missing::kCreate);
  if (!folder.ok()) {
    return folder.status();
  }
  const TemporaryName temporary(folder->get(), temporary_name());
  FileDescriptor target(
      ::openat(folder->get(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!target.is_open()) {
    return io_error(errno, absl::StrCat("cannot write artifact '", key, "'"));
  }
  auto stored = copy_and_digest(source.get(), target.get(), absl::StrCat("artifact '", key, "'"));
  if (!stored.ok()) {
    return stored.status();
  }
  if (::fsync(target.get()) != 0) {
    return io_error(errno, absl::StrCat("cannot sync artifact '", key, "'"));
  }
  if (::linkat(folder->get(), temporary.c_str(), folder->get(), name.c_str(), 0) != 0) {
    if (errno != EEXIST) {
      return io_error(errno, absl::StrCat("cannot name artifact '", key, "'"));
    }
    const auto existing_object = open_object(key);
    if (!existing_object.ok()) {
      return existing_object.status();
    }
    const auto existing = digest(existing_object->get(), absl::StrCat("artifact '", key, "'"));
    if (!existing.ok()) {
      return existing.status();
    }
    if (existing->sha256 != stored->sha256) {
      return absl::AlreadyExistsError(
          absl::StrCat("artifact '", key, "' exists with ", existing->size_bytes,
                       " bytes of other content; keys are written once"));
    }
  }
  // Also when it existed: whoever wrote it may have died before this.
  if (::fsync(folder->get()) != 0) {
    return io_error(errno, absl::StrCat("cannot sync the folder of artifact '", key, "'"));
  }
  return stored;
}

absl::Status LocalArtifactStore::read(const std::string& key, int64_t offset, int64_t size,
                                      std::string& out) {
  out.clear();
  if (offset < 0 || size < 0) {
    return absl::InvalidArgumentError(absl::StrCat("artifact '", key, "': offset ", offset,
                                                   " and size ", size, " must not be negative"));
  }
  const auto object = open_object(key);
  if (!object.ok()) {
    return object.status();
  }
  struct stat status;
  if (::fstat(object->get(), &status) != 0) {
    return io_error(errno, absl::StrCat("artifact '", key, "'"));
  }
  const int64_t available = status.st_size > offset ? status.st_size - offset : 0;
  out.resize(static_cast<size_t>(std::min(size, available)));
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t count = ::pread(object->get(), out.data() + done, out.size() - done,
                                  offset + static_cast<int64_t>(done));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      out.clear();
      return io_error(errno, absl::StrCat("cannot read artifact '", key, "'"));
    }
    if (count == 0) {
      break;
    }
    done += static_cast<size_t>(count);
  }
  out.resize(done);
  return absl::OkStatus();
}

absl::StatusOr<ArtifactStore::Stored> LocalArtifactStore::fetch(const std::string& key,
                                                                const std::filesystem::path& file) {
  const auto object = open_object(key);
  if (!object.ok()) {
    return object.status();
  }
  const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : ".";
  const std::string what = absl::StrCat("local copy '", file.filename().string(), "'");
  const FileDescriptor folder_descriptor(
      ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder_descriptor.is_open()) {
    return io_error(errno, absl::StrCat("cannot open the folder of ", what));
  }
  const TemporaryName temporary(folder_descriptor.get(), temporary_name());
  FileDescriptor target(::openat(folder_descriptor.get(), temporary.c_str(),
                                 O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!target.is_open()) {
    return io_error(errno, absl::StrCat("cannot write ", what));
  }
  auto stored = copy_and_digest(object->get(), target.get(), what);
  if (!stored.ok()) {
    return stored.status();
  }
  if (::renameat(folder_descriptor.get(), temporary.c_str(), folder_descriptor.get(),
                 file.filename().c_str()) != 0) {
    return io_error(errno, absl::StrCat("cannot name ", what));
  }
  return stored;
}

absl::StatusOr<std::vector<std::string>> LocalArtifactStore::attempt_prefixes() {
  std::vector<std::string> prefixes;
  const auto jobs = open_folder({"jobs"}, Missing::kFail);
  if (!jobs.ok()) {
    if (absl::IsNotFound(jobs.status())) {
      return prefixes;
    }
    return jobs.status();
  }
  const auto job_names = list_folders(*jobs, "the stored jobs");
  if (!job_names.ok()) {
    return job_names.status();
  }
  for (const std::string& job : *job_names) {
    const auto attempts = open_folder({"jobs", job, "attempts"}, Missing::kFail);
    if (absl::IsNotFound(attempts.status())) {
      continue;
    }
    if (!attempts.ok()) {
      return attempts.status();
    }
    const auto attempt_names = list_folders(*attempts, "a stored job's attempts");
    if (!attempt_names.ok()) {
      return attempt_names.status();
    }
    for (const std::string& attempt : *attempt_names) {
      const std::string prefix = absl::StrCat("jobs/", job, "/attempts/", attempt, "/");
      prefixes.push_back(prefix);
      const auto folder = open_folder({"jobs", job, "attempts", attempt}, Missing::kFail);
      if (absl::IsNotFound(folder.status())) {
        continue;
      }
      if (!folder.ok()) {
        return folder.status();
      }
      const auto parts = list_folders(*folder, "a stored attempt");
      if (!parts.ok()) {
        return parts.status();
      }
      for (const std::string& part : *parts) {
        prefixes.push_back(absl::StrCat(prefix, part, "/"));
      }
    }
  }
  return prefixes;
}

absl::Status LocalArtifactStore::remove_prefix(const std::string& prefix) {
  if (!absl::EndsWith(prefix, "/")) {
    return absl::InvalidArgumentError(
        absl::StrCat("artifact prefix '", prefix, "': must end in '/'"));
  }
  const auto parts = split_key(prefix.substr(0, prefix.size() - 1));
  if (!parts.ok()) {
    return parts.status();
  }
  // Opened once to be sure that no part of the way is a symbolic link; remove_all follows none
  // below.
  const auto folder = open_folder(*parts, Missing::kFail);
  if (absl::IsNotFound(folder.status())) {
    return absl::OkStatus();
  }
  if (!folder.ok()) {
    return folder.status();
  }
  std::error_code error;
  std::filesystem::remove_all(root_ / absl::StrJoin(*parts, "/"), error);
  if (error) {
    return io_error(error.value(), absl::StrCat("cannot remove artifacts under '", prefix, "'"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ArtifactStore>> open_local_artifact_store(
    const std::filesystem::path& root) {
  std::error_code error;
  std::filesystem::create_directories(root, error);
  if (error) {
    return io_error(error.value(),
                    absl::StrCat("cannot create the artifact folder '", root.string(), "'"));
  }
  FileDescriptor folder(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.is_open()) {
    return io_error(errno, absl::StrCat("cannot open the artifact folder '", root.string(), "'"));
  }
  return std::make_unique<LocalArtifactStore>(root, std::move(folder));
}

}  // namespace qaas
