#include "server/bounded_pool.h"

#include <utility>

namespace qaas {

BoundedPool::BoundedPool(int threads, int queue_capacity, PoolMetrics metrics)
    : queue_capacity_(queue_capacity), metrics_(metrics) {
  threads_.reserve(threads);
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
}

BoundedPool::~BoundedPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool BoundedPool::submit(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (static_cast<int>(queue_.size()) >= queue_capacity_) {
      metrics_.refused.Increment();
      return false;
    }
    queue_.push_back(std::move(task));
    metrics_.queued.Increment();
  }
  wake_.notify_one();
  return true;
}

void BoundedPool::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    std::function<void()> task = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    metrics_.queued.Decrement();
    metrics_.busy.Increment();
    task();
    task = nullptr;  // what it held is released outside the lock
    metrics_.busy.Decrement();
    lock.lock();
  }
}

}  // namespace qaas
