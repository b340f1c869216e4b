#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>

namespace qaas {

/// Where a pool shows its load; the metrics outlive the pool.
struct PoolMetrics {
  prometheus::Gauge& busy;       ///< threads at work
  prometheus::Gauge& queued;     ///< tasks waiting
  prometheus::Counter& refused;  ///< tasks turned away
};

/// A fixed number of threads and a bounded queue before them: where work that blocks (SQL, disk)
/// runs, so that no gRPC reactor ever does. Thread-safe.
class BoundedPool {
 public:
  /// `threads` and `queue_capacity` are at least 1.
  BoundedPool(int threads, int queue_capacity, PoolMetrics metrics);
  /// Runs what is queued, then joins.
  ~BoundedPool();
  BoundedPool(const BoundedPool&) = delete;
  BoundedPool& operator=(const BoundedPool&) = delete;

  /// Queues `task`, or returns false at once when the queue is full. Tasks must not throw.
  [[nodiscard]] bool submit(std::function<void()> task);

 private:
  void run();

  const int queue_capacity_;
  const PoolMetrics metrics_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace qaas
