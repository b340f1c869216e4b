#include "server/bounded_pool.h"

#include <atomic>
#include <future>

#include <gtest/gtest.h>

namespace qaas {
namespace {

struct Metrics {
  prometheus::Gauge busy;
  prometheus::Gauge queued;
  prometheus::Counter refused;
  operator PoolMetrics() { return {.busy = busy, .queued = queued, .refused = refused}; }
};

TEST(BoundedPool, RefusesWhatItsQueueCannotHold) {
  Metrics metrics;
  std::promise<void> started;
  std::promise<void> release;
  std::atomic<int> ran{0};
  {
    BoundedPool pool(1, 2, metrics);
    ASSERT_TRUE(pool.submit([&] {
      started.set_value();
      release.get_future().wait();
      ++ran;
    }));
    started.get_future().wait();
    EXPECT_TRUE(pool.submit([&] { ++ran; }));
    EXPECT_TRUE(pool.submit([&] { ++ran; }));
    EXPECT_FALSE(pool.submit([&] { ++ran; }));
    EXPECT_EQ(metrics.busy.Value(), 1);
    EXPECT_EQ(metrics.queued.Value(), 2);
    EXPECT_EQ(metrics.refused.Value(), 1);
    release.set_value();
  }
  EXPECT_EQ(ran, 3) << "what was taken is run before the pool goes";
  EXPECT_EQ(metrics.busy.Value(), 0);
  EXPECT_EQ(metrics.queued.Value(), 0);
}

}  // namespace
}  // namespace qaas
