#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>

#include <absl/status/statusor.h>

namespace qaas {

/// `bytes` (more than 0) of zeroed, page-aligned, writable memory that lives in a file of `folder`
/// (created where missing) and goes with the last owner. The file has no name, so that nothing is
/// left behind however the process ends, and all its blocks are allocated at once: a full disk is
/// kResourceExhausted here, never a SIGBUS at a later write. Its pages are the kernel's to write
/// out and drop: they do not count as anonymous memory. Other failures keep their errno's code.
absl::StatusOr<std::shared_ptr<std::byte>> map_scratch_file(const std::filesystem::path& folder,
                                                            int64_t bytes);

/// The same in anonymous memory, in huge pages where the system has them. It goes back to the
/// system with its last owner, whatever the allocator keeps. kResourceExhausted if there is none.
absl::StatusOr<std::shared_ptr<std::byte>> map_anonymous(int64_t bytes);

}  // namespace qaas
