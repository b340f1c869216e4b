#include "workers/engine/model/activation_cache.h"

#include <optional>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tensor_matchers.h"

namespace qaas {
namespace {

using testing::same_bits;
using testing::TemporaryFolder;

TEST(ActivationCache, SpillsToFilesWhenTheBudgetIsSpent) {
  const TemporaryFolder folder;
  ActivationCache cache(folder / "scratch", 1000);
  QAAS_ASSERT_OK_AND_ASSIGN(const torch::Tensor first, cache.empty({10, 20}, torch::kFloat32));
  EXPECT_EQ(cache.memory_bytes(), 800);
  EXPECT_FALSE(std::filesystem::exists(folder / "scratch"));
  QAAS_ASSERT_OK_AND_ASSIGN(const torch::Tensor second, cache.empty({3, 17}, torch::kFloat32));
  EXPECT_EQ(cache.memory_bytes(), 800);
  EXPECT_EQ(cache.file_bytes(), 204);
  EXPECT_TRUE(std::filesystem::is_directory(folder / "scratch"));
  QAAS_ASSERT_OK_AND_ASSIGN(const torch::Tensor third, cache.empty({100}, torch::kBFloat16));
  EXPECT_EQ(cache.memory_bytes(), 1000);  // what fits still goes to memory
}

TEST(ActivationCache, ATensorInAFileIsAsGoodAsOneInMemory) {
  const TemporaryFolder folder;
  ActivationCache cache(folder.path(), 0);
  const torch::Tensor values = torch::randn({7, 33, 5});
  QAAS_ASSERT_OK_AND_ASSIGN(const torch::Tensor tensor, cache.empty({7, 33, 5}, torch::kFloat32));
  EXPECT_TRUE(tensor.is_contiguous());
  tensor.copy_(values);
  EXPECT_TRUE(same_bits(tensor, values));
  EXPECT_TRUE(same_bits(tensor.slice(0, 2, 5) + 1, values.slice(0, 2, 5) + 1));
}

TEST(ActivationCache, TheBudgetReturnsWithTheLastViewEvenAfterTheCacheIsGone) {
  const TemporaryFolder folder;
  std::optional<ActivationCache> cache(std::in_place, folder.path(), 400);
  torch::Tensor view;
  {
    QAAS_ASSERT_OK_AND_ASSIGN(const torch::Tensor tensor, cache->empty({100}, torch::kFloat32));
    view = tensor.slice(0, 10, 20);
    view.fill_(3);
  }
  EXPECT_EQ(cache->memory_bytes(), 400);
  view.reset();
  EXPECT_EQ(cache->memory_bytes(), 0);
  {
    QAAS_ASSERT_OK_AND_ASSIGN(const torch::Tensor tensor, cache->empty({101}, torch::kFloat32));
    EXPECT_EQ(cache->file_bytes(), 404);
  }
  EXPECT_EQ(cache->file_bytes(), 0);
  QAAS_ASSERT_OK_AND_ASSIGN(torch::Tensor survivor, cache->empty({100}, torch::kFloat32));
  cache.reset();
  survivor.fill_(2);
  EXPECT_EQ(survivor.sum().item<float>(), 200);
}

TEST(ActivationCache, AnEmptyTensorTakesNothing) {
  const TemporaryFolder folder;
  ActivationCache cache(folder / "scratch", 0);
  QAAS_ASSERT_OK_AND_ASSIGN(const torch::Tensor tensor, cache.empty({0, 4}, torch::kFloat32));
  EXPECT_EQ(tensor.numel(), 0);
  EXPECT_FALSE(std::filesystem::exists(folder / "scratch"));
}

}  // namespace
}  // namespace qaas
