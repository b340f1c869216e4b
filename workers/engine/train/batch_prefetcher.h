#pragma once

#include <cstdint>
#include <future>
#include <vector>

#include <torch/torch.h>

namespace qaas {

/// Batches of windows, each gathered by a thread of its own while the one before it trains, into
/// two buffers that are used in turn: neither copying nor, where the streams lie in files, reading
/// them holds up a step. Not thread-safe.
class BatchPrefetcher {
 public:
  struct Batch {
    torch::Tensor inputs, targets;  ///< [windows, seq, dim] float32
  };

  /// inputs, targets: [windows, seq, dim] float32, contiguous. `batches` names the windows of each
  /// batch in the order they are asked for; none is empty.
  BatchPrefetcher(const torch::Tensor& inputs, const torch::Tensor& targets,
                  std::vector<std::vector<int64_t>> batches);
  ~BatchPrefetcher();
  BatchPrefetcher(const BatchPrefetcher&) = delete;
  BatchPrefetcher& operator=(const BatchPrefetcher&) = delete;

  /// The next batch; valid until the next call. May be called once for each batch.
  Batch next();

 private:
  void gather(size_t batch);

  torch::Tensor inputs_, targets_;
  std::vector<std::vector<int64_t>> batches_;
  Batch buffers_[2];  // of the largest batch
  size_t next_ = 0;
  std::future<void> pending_;
};

}  // namespace qaas
