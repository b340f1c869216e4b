#include "clients/cli/partial_file.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <absl/cleanup/cleanup.h>
#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>

namespace qaas::cli {
namespace {

constexpr size_t kReadSize = 1 << 20;

/// read() that is not disturbed by signals; -1 on failure.
ssize_t read_some(int descriptor, char* buffer, size_t size) {
  ssize_t count;
  do {
    count = ::read(descriptor, buffer, size);
  } while (count < 0 && errno == EINTR);
  return count;
}

std::string hex_digest(const EVP_MD_CTX* running) {
  EVP_MD_CTX* copy = EVP_MD_CTX_new();
  EVP_MD_CTX_copy_ex(copy, running);
  std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
  unsigned int size = 0;
  EVP_DigestFinal_ex(copy, bytes.data(), &size);
  EVP_MD_CTX_free(copy);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), size));
}

}  // namespace

PartialFile::PartialFile(std::filesystem::path final_path, int descriptor)
    : final_path_(std::move(final_path)), descriptor_(descriptor), digest_(EVP_MD_CTX_new()) {
  EVP_DigestInit_ex(digest_, EVP_sha256(), nullptr);
}

PartialFile::PartialFile(PartialFile&& other) noexcept
    : final_path_(std::move(other.final_path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_),
      digest_(std::exchange(other.digest_, nullptr)) {}

PartialFile::~PartialFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  EVP_MD_CTX_free(digest_);
}

std::filesystem::path PartialFile::partial_path() const {
  return final_path_.string() + ".partial";
}

absl::Status PartialFile::failure(const std::string& what) const {
  return absl::FailedPreconditionError(
      absl::StrCat("cannot ", what, " '", partial_path().string(), "': ", std::strerror(errno)));
}

absl::StatusOr<PartialFile> PartialFile::open(const std::filesystem::path& folder,
                                              const std::string& name, int64_t most_bytes) {
  const std::filesystem::path partial = folder / (name + ".partial");
  PartialFile file(folder / name,
                   ::open(partial.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (file.descriptor_ < 0) return file.failure("open");
  if (::flock(file.descriptor_, LOCK_EX | LOCK_NB) != 0) {
    return absl::AbortedError(
        absl::StrCat("'", partial.string(), "' is being written by another download"));
  }
  const absl::Status status = file.digest_existing(most_bytes);
  if (!status.ok()) return status;
  return file;
}

absl::Status PartialFile::digest_existing(int64_t most_bytes) {
  struct stat facts {};
  if (::fstat(descriptor_, &facts) != 0) return failure("examine");
  if (!S_ISREG(facts.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat("'", partial_path().string(), "' is not a regular file"));
  }
  if (facts.st_size > most_bytes) return restart();
  std::vector<char> buffer(kReadSize);
  while (true) {
    const ssize_t count = read_some(descriptor_, buffer.data(), buffer.size());
    if (count < 0) return failure("read");
    if (count == 0) return absl::OkStatus();
    EVP_DigestUpdate(digest_, buffer.data(), static_cast<size_t>(count));
    size_ += count;
  }
}

absl::Status PartialFile::append(const std::string& bytes) {
  size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t count = ::write(descriptor_, bytes.data() + written, bytes.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return failure("write");
    EVP_DigestUpdate(digest_, bytes.data() + written, static_cast<size_t>(count));
    written += static_cast<size_t>(count);
    size_ += count;
  }
  return absl::OkStatus();
}

absl::Status PartialFile::restart() {
  if (::ftruncate(descriptor_, 0) != 0 || ::lseek(descriptor_, 0, SEEK_SET) != 0) {
    return failure("truncate");
  }
  EVP_DigestInit_ex(digest_, EVP_sha256(), nullptr);
  size_ = 0;
  return absl::OkStatus();
}

std::string PartialFile::sha256() const { return hex_digest(digest_); }

absl::Status PartialFile::publish() {
  if (::fsync(descriptor_) != 0) return failure("sync");
  // link() refuses a name that is taken, which rename() would overwrite.
  if (::link(partial_path().c_str(), final_path_.c_str()) != 0) {
    return failure(absl::StrCat("give the name '", final_path_.filename().string(), "' to"));
  }
  if (::unlink(partial_path().c_str()) != 0) return failure("remove");
  const int folder = ::open(final_path_.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return failure("sync the folder of");
  const bool synced = ::fsync(folder) == 0;
  ::close(folder);
  return synced ? absl::OkStatus() : failure("sync the folder of");
}

absl::StatusOr<std::string> sha256_of_file(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    return absl::Status(
        errno == ENOENT ? absl::StatusCode::kNotFound : absl::StatusCode::kFailedPrecondition,
        absl::StrCat("cannot read '", path.string(), "': ", std::strerror(errno)));
  }
  const auto close = absl::MakeCleanup([&] { ::close(descriptor); });
  EVP_MD_CTX* digest = EVP_MD_CTX_new();
  const auto free_digest = absl::MakeCleanup([&] { EVP_MD_CTX_free(digest); });
  EVP_DigestInit_ex(digest, EVP_sha256(), nullptr);
  std::vector<char> buffer(kReadSize);
  while (true) {
    const ssize_t count = read_some(descriptor, buffer.data(), buffer.size());
    if (count < 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("cannot read '", path.string(), "': ", std::strerror(errno)));
    }
    if (count == 0) return hex_digest(digest);
    EVP_DigestUpdate(digest, buffer.data(), static_cast<size_t>(count));
  }
}

}  // namespace qaas::cli
