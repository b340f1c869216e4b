#include "workers/engine/model/activation_cache.h"

#include <utility>

#include "storage/checkpoint/scratch_mapping.h"

namespace qaas {
namespace {

/// Adds `bytes` to `used` unless that passes `most`.
bool take(std::atomic<int64_t>& used, int64_t bytes, int64_t most) {
  int64_t before = used;
  do {
    if (bytes > most - before) return false;
  } while (!used.compare_exchange_weak(before, before + bytes));
  return true;
}

}  // namespace

ActivationCache::ActivationCache(std::filesystem::path folder, int64_t memory_budget_bytes)
    : folder_(std::move(folder)), budget_(memory_budget_bytes) {}

absl::StatusOr<torch::Tensor> ActivationCache::empty(at::IntArrayRef sizes,
                                                     torch::ScalarType type) {
  int64_t bytes = static_cast<int64_t>(torch::elementSize(type));
  for (const int64_t size : sizes) bytes *= size;
  if (bytes == 0) return torch::empty(sizes, type);
  const bool in_memory = take(usage_->memory, bytes, budget_);
  auto memory = in_memory ? map_anonymous(bytes) : map_scratch_file(folder_, bytes);
  std::atomic<int64_t>& used = in_memory ? usage_->memory : usage_->files;
  if (!memory.ok()) {
    if (in_memory) used -= bytes;
    return memory.status();
  }
  if (!in_memory) used += bytes;
  std::byte* start = memory->get();
  return torch::from_blob(
      start, sizes,
      [usage = usage_, &used, bytes, memory = *std::move(memory)](void*) mutable {
        memory.reset();
        used -= bytes;
      },
      type);
}

}  // namespace qaas
