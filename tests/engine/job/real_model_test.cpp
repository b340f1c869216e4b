#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "workers/engine/job/evaluate_folder.h"

namespace qaas {
namespace {

TEST(RealModel, PerplexityOfStories15mIsTheOracles) {
  const std::filesystem::path shared = testing::shared_folder();
  const std::filesystem::path model = shared / "models" / "stories15M";
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "no " << model;
  QAAS_ASSERT_OK_AND_ASSIGN(const FolderScore score,
                            evaluate_folder({.model = model,
                                             .evaluation = shared / "data" / "stories15M_eval.ids",
                                             .sequence_length = 256,
                                             .samples = 64},
                                            {}));
  EXPECT_NEAR(score.score.perplexity, 2.5345, 0.00005);
  EXPECT_EQ(score.windows, 64);
}

}  // namespace
}  // namespace qaas
