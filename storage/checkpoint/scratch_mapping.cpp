#include "storage/checkpoint/scratch_mapping.h"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <system_error>
#include <unistd.h>

#include <absl/cleanup/cleanup.h>
#include <absl/strings/str_cat.h>

namespace qaas {
namespace {

absl::Status failure(int error, const std::string& what) {
  const std::string text = absl::StrCat(what, ": ", std::generic_category().message(error));
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM:
      return absl::ResourceExhaustedError(text);
    default:
      return absl::ErrnoToStatus(error, what);
  }
}

absl::StatusOr<std::shared_ptr<std::byte>> map(int64_t bytes, int flags, int descriptor,
                                               const std::string& what) {
  const auto size = static_cast<size_t>(bytes);
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, descriptor, 0);
  if (memory == MAP_FAILED) return failure(errno, what);
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory),
                                    [size](std::byte* start) { munmap(start, size); });
}

}  // namespace

absl::StatusOr<std::shared_ptr<std::byte>> map_scratch_file(const std::filesystem::path& folder,
                                                            int64_t bytes) {
  const std::string what = absl::StrCat("scratch file of ", bytes, " bytes in ", folder.string());
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return failure(error.value(), what);
  std::string path = (folder / ".scratch.XXXXXX").string();
  const int descriptor = mkostemp(path.data(), O_CLOEXEC);
  if (descriptor < 0) return failure(errno, what);
  const absl::Cleanup close_file = [descriptor] { close(descriptor); };
  if (unlink(path.c_str()) != 0) return failure(errno, what);
  int allocated = EINTR;
  while (allocated == EINTR) allocated = posix_fallocate(descriptor, 0, bytes);
  if (allocated != 0) return failure(allocated, what);
  return map(bytes, MAP_SHARED, descriptor, what);
}

absl::StatusOr<std::shared_ptr<std::byte>> map_anonymous(int64_t bytes) {
  auto memory = map(bytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                    absl::StrCat(bytes, " bytes of memory"));
  if (memory.ok()) madvise(memory->get(), static_cast<size_t>(bytes), MADV_HUGEPAGE);
  return memory;
}

}  // namespace qaas
