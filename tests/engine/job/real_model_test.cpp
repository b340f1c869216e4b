#include <cmath>

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
                                             .texts = {shared / "data" / "stories15M_eval.ids"},
                                             .sequence_length = 256,
                                             .samples = 64},
                                            {}));
  EXPECT_NEAR(score.texts[0].model.perplexity, 2.5345, 0.00005);
  EXPECT_EQ(score.texts[0].windows, 64);
}

// The figures of tests/tools/score_tasks.py --questions 50, which shares no code or tokenizer with
// the engine.
TEST(RealModel, TasksScoreAsInTheIndependentScript) {
  const std::filesystem::path shared = testing::shared_folder();
  const std::filesystem::path model = shared / "models" / "stories15M", tasks = shared / "tasks";
  if (!std::filesystem::exists(model) || !std::filesystem::exists(tasks)) {
    GTEST_SKIP() << "no " << model << " or no " << tasks;
  }
  QAAS_ASSERT_OK_AND_ASSIGN(
      const FolderScore score,
      evaluate_folder(
          {.model = model,
           .tasks = {tasks / "arc_easy.jsonl", tasks / "piqa.jsonl", tasks / "winogrande.jsonl"},
           .questions = 50},
          {}));
  ASSERT_EQ(score.tasks.size(), 3u);
  EXPECT_EQ(score.tasks[0].model.name, "arc_easy");
  EXPECT_DOUBLE_EQ(score.tasks[0].model.acc, 0.32);
  EXPECT_DOUBLE_EQ(score.tasks[0].model.acc_norm, 0.34);
  EXPECT_DOUBLE_EQ(score.tasks[1].model.acc, 0.50);
  EXPECT_DOUBLE_EQ(score.tasks[1].model.acc_norm, 0.44);
  EXPECT_DOUBLE_EQ(score.tasks[2].model.acc, 0.54);
  EXPECT_DOUBLE_EQ(score.tasks[2].model.acc_stderr, std::sqrt(0.54 * 0.46 / 49));
}

}  // namespace
}  // namespace qaas
