#include "workers/engine/train/batch_prefetcher.h"

#include "tests/support/tensor_matchers.h"

namespace qaas {
namespace {

using testing::same_bits;

TEST(BatchPrefetcher, GivesEveryBatchInTheOrderAskedFor) {
  const torch::Tensor inputs = torch::randn({9, 4, 3}), targets = torch::randn({9, 4, 3});
  const std::vector<std::vector<int64_t>> batches = {{8, 0}, {3}, {1, 2, 7}, {4, 4}};
  BatchPrefetcher prefetcher(inputs, targets, batches);
  for (const std::vector<int64_t>& windows : batches) {
    const BatchPrefetcher::Batch batch = prefetcher.next();
    const torch::Tensor index = torch::tensor(windows);
    EXPECT_TRUE(same_bits(batch.inputs, inputs.index_select(0, index)));
    EXPECT_TRUE(same_bits(batch.targets, targets.index_select(0, index)));
  }
}

TEST(BatchPrefetcher, ABatchStaysWhileTheNextIsGathered) {
  const torch::Tensor stream = torch::randn({64, 128, 16});
  std::vector<std::vector<int64_t>> batches;
  for (int64_t i = 0; i < 64; ++i) batches.push_back({i});
  BatchPrefetcher prefetcher(stream, stream, batches);
  for (int64_t i = 0; i < 32; ++i) {  // the rest is never asked for
    const BatchPrefetcher::Batch batch = prefetcher.next();
    const torch::Tensor copy = batch.inputs.clone();
    EXPECT_TRUE(same_bits(copy, stream.slice(0, i, i + 1)));
    EXPECT_TRUE(same_bits(batch.inputs, copy));
  }
}

TEST(BatchPrefetcher, WithoutBatchesThereIsNothingToWaitFor) {
  const torch::Tensor stream = torch::randn({2, 3, 4});
  const BatchPrefetcher prefetcher(stream, stream, {});
}

}  // namespace
}  // namespace qaas
