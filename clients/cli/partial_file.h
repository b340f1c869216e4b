#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <openssl/evp.h>

namespace qaas::cli {

/// A file on its way: bytes are appended to NAME.partial and digested as they come; publish() gives
/// it its name. One program at a time writes it (a lock is held while it is open). Errors are
/// kFailedPrecondition with the path and the system's reason; a lock that is taken is kAborted.
class PartialFile {
 public:
  /// Opens `folder`/`name`.partial, new or to be continued, and digests what it holds. A file
  /// longer than `most_bytes` is begun anew. Does not follow a symlink.
  static absl::StatusOr<PartialFile> open(const std::filesystem::path& folder,
                                          const std::string& name, int64_t most_bytes);
  PartialFile(PartialFile&& other) noexcept;
  PartialFile& operator=(PartialFile&&) = delete;
  ~PartialFile();

  /// Bytes so far.
  int64_t size() const { return size_; }
  absl::Status append(const std::string& bytes);
  /// Back to no bytes.
  absl::Status restart();
  /// SHA-256 of the bytes so far, lower-case hex. More may be appended afterwards.
  std::string sha256() const;
  /// Makes the bytes durable and renames the file to its name, which must be free.
  absl::Status publish();

 private:
  PartialFile(std::filesystem::path final_path, int descriptor);
  absl::Status digest_existing(int64_t most_bytes);
  absl::Status failure(const std::string& what) const;
  std::filesystem::path partial_path() const;

  std::filesystem::path final_path_;
  int descriptor_ = -1;
  int64_t size_ = 0;
  EVP_MD_CTX* digest_ = nullptr;
};

/// SHA-256 of a regular file, lower-case hex; kNotFound where there is none.
absl::StatusOr<std::string> sha256_of_file(const std::filesystem::path& path);

}  // namespace qaas::cli
