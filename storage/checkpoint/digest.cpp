#include "storage/checkpoint/digest.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <memory>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <vector>

#include <absl/cleanup/cleanup.h>
#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <openssl/evp.h>

#include "storage/checkpoint/folder_entry.h"

namespace qaas {
namespace {

constexpr size_t kChunk = size_t{1} << 20;

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new()) {
    ok_ = context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1;
  }
  void update(const void* bytes, size_t size) {
    ok_ = ok_ && EVP_DigestUpdate(context_.get(), bytes, size) == 1;
  }
  absl::StatusOr<std::string> finish() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    ok_ = ok_ && EVP_DigestFinal_ex(context_.get(), digest, &size) == 1;
    if (!ok_) return absl::InternalError("OpenSSL cannot compute SHA-256");
    return absl::BytesToHexString({reinterpret_cast<const char*>(digest), size});
  }

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context_;
  bool ok_ = false;
};

absl::Status read_error(int error, const std::filesystem::path& path) {
  const std::string text =
      absl::StrCat(path.string(), ": ", std::generic_category().message(error));
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(text);
  return absl::UnavailableError(text);
}

struct FileDigest {
  int64_t size = 0;
  std::string hex;
};

absl::StatusOr<FileDigest> digest_file(const std::filesystem::path& path,
                                       const std::stop_token& stop) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return read_error(errno, path);
  absl::Cleanup close_file = [descriptor] { close(descriptor); };
  struct stat before {};
  if (fstat(descriptor, &before) != 0) return read_error(errno, path);
  if (!S_ISREG(before.st_mode)) {
    return absl::NotFoundError(absl::StrCat(path.string(), ": not a regular file"));
  }
  Sha256 sha;
  FileDigest result;
  std::vector<char> chunk(kChunk);
  for (;;) {
    const ssize_t got = read(descriptor, chunk.data(), chunk.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return read_error(errno, path);
    if (got == 0) break;
    if (stop.stop_requested()) {
      return absl::CancelledError(absl::StrCat(path.string(), ": reading was stopped"));
    }
    sha.update(chunk.data(), static_cast<size_t>(got));
    result.size += got;
  }
  struct stat after {};
  if (fstat(descriptor, &after) != 0) return read_error(errno, path);
  if (result.size != before.st_size || after.st_size != before.st_size ||
      after.st_mtim.tv_sec != before.st_mtim.tv_sec ||
      after.st_mtim.tv_nsec != before.st_mtim.tv_nsec) {
    return absl::UnavailableError(absl::StrCat(path.string(), ": changed while it was read"));
  }
  auto hex = sha.finish();
  if (!hex.ok()) return hex.status();
  result.hex = *std::move(hex);
  return result;
}

}  // namespace

absl::StatusOr<std::string> sha256_text(std::string_view text) {
  Sha256 sha;
  sha.update(text.data(), text.size());
  return sha.finish();
}

absl::StatusOr<std::string> sha256_file(const std::filesystem::path& path) {
  auto digest = digest_file(path, {});
  if (!digest.ok()) return digest.status();
  return std::move(digest->hex);
}

absl::StatusOr<std::string> sha256_folder(const std::filesystem::path& folder,
                                          const std::stop_token& stop) {
  const auto names = folder_files(folder);
  if (!names.ok()) return names.status();
  Sha256 sha;
  for (const std::string& name : *names) {
    const auto path = resolve_inside(folder, name);
    if (!path.ok()) return path.status();
    const auto digest = digest_file(*path, stop);
    if (!digest.ok()) return digest.status();
    const std::string line = absl::StrCat(name, "\n", digest->size, "\n", digest->hex, "\n");
    sha.update(line.data(), line.size());
  }
  return sha.finish();
}

}  // namespace qaas
