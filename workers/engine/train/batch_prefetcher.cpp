#include "workers/engine/train/batch_prefetcher.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace qaas {
namespace {

/// Rows `windows` of `from` to the first rows of `to`. Plain copies: a thread that called ATen
/// would start a pool of threads of its own.
void copy_rows(const torch::Tensor& from, const std::vector<int64_t>& windows,
               const torch::Tensor& to) {
  const int64_t row = from.stride(0);
  const auto* source = from.data_ptr<float>();
  auto* out = to.data_ptr<float>();
  for (const int64_t window : windows) {
    std::memcpy(out, source + window * row, static_cast<size_t>(row) * sizeof(float));
    out += row;
  }
}

}  // namespace

BatchPrefetcher::BatchPrefetcher(const torch::Tensor& inputs, const torch::Tensor& targets,
                                 std::vector<std::vector<int64_t>> batches)
    : inputs_(inputs), targets_(targets), batches_(std::move(batches)) {
  TORCH_CHECK(inputs.is_contiguous() && targets.is_contiguous() && inputs.is_cpu() &&
                  inputs.sizes() == targets.sizes(),
              "streams are contiguous and on the CPU, got ", inputs.sizes(), " and ",
              targets.sizes());
  size_t largest = 0;
  for (const auto& batch : batches_) largest = std::max(largest, batch.size());
  for (Batch& buffer : buffers_) {
    std::vector<int64_t> sizes = inputs.sizes().vec();
    sizes[0] = static_cast<int64_t>(largest);
    buffer = {torch::empty(sizes), torch::empty(sizes)};
  }
  if (!batches_.empty()) gather(0);
}

BatchPrefetcher::~BatchPrefetcher() {
  if (pending_.valid()) pending_.wait();
}

BatchPrefetcher::Batch BatchPrefetcher::next() {
  pending_.get();
  const Batch& buffer = buffers_[next_ % 2];
  const auto count = static_cast<int64_t>(batches_[next_].size());
  const Batch batch{buffer.inputs.narrow(0, 0, count), buffer.targets.narrow(0, 0, count)};
  if (++next_ < batches_.size()) gather(next_);
  return batch;
}

void BatchPrefetcher::gather(size_t batch) {
  pending_ = std::async(std::launch::async, [this, batch] {
    copy_rows(inputs_, batches_[batch], buffers_[batch % 2].inputs);
    copy_rows(targets_, batches_[batch], buffers_[batch % 2].targets);
  });
}

}  // namespace qaas
