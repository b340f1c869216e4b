#include "storage/artifacts/file_copy.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <unistd.h>
#include <vector>

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <openssl/evp.h>

namespace qaas {
namespace {

constexpr size_t kBufferBytes = 1 << 20;
constexpr int kNoTarget = -1;

struct DigestDeleter {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

absl::Status write_all(int target, const char* bytes, size_t size, const std::string& what) {
  while (size > 0) {
    const ssize_t count = ::write(target, bytes, size);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return io_error(errno, absl::StrCat("cannot write ", what));
    }
    bytes += count;
    size -= static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status io_error(int error_number, const std::string& what) {
  const std::string message = absl::StrCat(what, ": ", std::strerror(error_number));
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:  // a part of the key is a file
    case ELOOP:    // a part of the key is a symbolic link
      return absl::NotFoundError(message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return absl::ResourceExhaustedError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    default:
      return absl::UnavailableError(message);
  }
}

absl::StatusOr<ArtifactStore::Stored> copy_and_digest(int source, int target,
                                                      const std::string& what) {
  const std::unique_ptr<EVP_MD_CTX, DigestDeleter> context(EVP_MD_CTX_new());
  if (!context || EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) != 1) {
    return absl::InternalError("OpenSSL offers no SHA-256");
  }
  ArtifactStore::Stored stored;
  std::vector<char> buffer(kBufferBytes);
  while (true) {
    const ssize_t count = ::read(source, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return io_error(errno, absl::StrCat("cannot read what goes into ", what));
    }
    if (count == 0) {
      break;
    }
    EVP_DigestUpdate(context.get(), buffer.data(), static_cast<size_t>(count));
    if (target != kNoTarget) {
      const absl::Status written =
          write_all(target, buffer.data(), static_cast<size_t>(count), what);
      if (!written.ok()) {
        return written;
      }
    }
    stored.size_bytes += count;
  }
  std::array<char, EVP_MAX_MD_SIZE> sum;
  unsigned int size = 0;
  EVP_DigestFinal_ex(context.get(), reinterpret_cast<unsigned char*>(sum.data()), &size);
  stored.sha256 = absl::BytesToHexString(absl::string_view(sum.data(), size));
  return stored;
}

absl::StatusOr<ArtifactStore::Stored> digest(int source, const std::string& what) {
  return copy_and_digest(source, kNoTarget, what);
}

}  // namespace qaas
