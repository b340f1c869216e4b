#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>

#include <absl/status/statusor.h>
#include <torch/torch.h>

namespace qaas {

/// Where the activations of all windows live between blocks: in anonymous memory while a budget
/// lasts, beyond it in mapped files. What it hands out are ordinary tensors; those in files are
/// read and written through the page cache, whose pages the kernel may write out and drop at any
/// time, so that they slow a run down when memory is short instead of ending it. Safe to use from
/// several threads; tensors may outlive the cache.
class ActivationCache {
 public:
  /// Files go into `folder`, created when the first is needed. Budget 0: everything in files.
  ActivationCache(std::filesystem::path folder, int64_t memory_budget_bytes);

  /// A contiguous CPU tensor of `sizes`, its values unspecified. A tensor is in one place as a
  /// whole: in memory if what is left of the budget holds it. Its share returns to the budget, or
  /// its file to the disk, when the last tensor that shares its storage dies. kResourceExhausted
  /// when the disk is full.
  absl::StatusOr<torch::Tensor> empty(at::IntArrayRef sizes, torch::ScalarType type);

  /// Bytes of living tensors, by place.
  int64_t memory_bytes() const { return usage_->memory; }
  int64_t file_bytes() const { return usage_->files; }

 private:
  struct Usage {
    std::atomic<int64_t> memory = 0, files = 0;
  };

  std::filesystem::path folder_;
  int64_t budget_;
  std::shared_ptr<Usage> usage_ = std::make_shared<Usage>();
};

}  // namespace qaas
