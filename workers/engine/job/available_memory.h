#pragma once

#include <cstdint>
#include <filesystem>

namespace qaas {

/// Bytes of memory this process may still take without swapping: what the machine has available
/// (MemAvailable), or what is left of the limit of a control group (version 1 or 2) it is in, where
/// that is less. File pages of the group that the kernel can drop count as left. `root` stands
/// before /proc and /sys, for tests.
int64_t available_memory(const std::filesystem::path& root = "/");

/// Hands the allocator's freed memory back to the kernel. It is kept otherwise, because faulting it
/// in anew costs as much as the arithmetic; between blocks its pieces fit nothing that follows.
void release_freed_memory();

}  // namespace qaas
