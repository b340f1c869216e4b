#include "workers/engine/eval/evaluate_model.h"

#include <cmath>
#include <random>

#include "tests/engine/eval/scored_llama.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace qaas {
namespace {

using testing::IsOk;
using testing::ScoredLlama;
using testing::StatusIs;
using testing::TemporaryFolder;
using testing::write_tiny_llama;

constexpr int64_t kVocab = 96, kQuestions = 30, kChoices = 3;

/// Choices of many lengths: a question's context, and continuations of 1 to 4 tokens.
Task random_task(uint64_t seed) {
  std::mt19937_64 draw(seed);
  Task task{.name = "random"};
  for (int64_t q = 0; q < kQuestions; ++q) {
    Question& question = task.questions.emplace_back();
    std::vector<int32_t> context(1 + draw() % 40);
    for (int32_t& id : context) id = static_cast<int32_t>(draw() % kVocab);
    for (int64_t c = 0; c < kChoices; ++c) {
      Choice choice{.tokens = context, .scored = static_cast<int64_t>(1 + draw() % 4)};
      for (int64_t t = 0; t < choice.scored; ++t) {
        choice.tokens.push_back(static_cast<int32_t>(draw() % kVocab));
      }
      choice.bytes = 3 * choice.scored + static_cast<int64_t>(draw() % 3);
      question.choices.push_back(choice);
    }
    question.gold = static_cast<int64_t>(draw() % kChoices);
  }
  return task;
}

class EvaluateModel : public ::testing::Test {
 protected:
  EvaluateModel()
      : original_(write_tiny_llama(folder_ / "original", {.dtype = Dtype::kBf16})),
        other_(write_tiny_llama(folder_ / "other", {.blocks = 3, .seed = 2})) {
    at::set_num_threads(1);
    torch::manual_seed(4);
    inputs_.texts = {torch::randint(kVocab, {5, 20}, torch::kInt64),
                     torch::randint(kVocab, {3, 33}, torch::kInt64)};
    inputs_.tasks = {random_task(1), random_task(2)};
  }

  TemporaryFolder folder_;
  ScoredLlama original_, other_;
  EvaluationInputs inputs_;
};

TEST_F(EvaluateModel, ChoicesScoreAsWhenRunOneByOne) {
  QAAS_ASSERT_OK_AND_ASSIGN(const EvaluationScores scores,
                            evaluate_model(other_.parts(), inputs_, nullptr, {}, {}));
  const Task& task = inputs_.tasks[1];
  int64_t right = 0, right_by_length = 0;
  for (size_t q = 0; q < task.questions.size(); ++q) {
    const Question& question = task.questions[q];
    std::vector<double> sums, by_length;
    for (size_t c = 0; c < question.choices.size(); ++c) {
      const Choice& choice = question.choices[c];
      const torch::Tensor ids = torch::tensor(choice.tokens, torch::kInt64).unsqueeze(0);
      const torch::Tensor log_p = other_.log_probabilities(ids)[0];  // [tokens - 1, vocab]
      double sum = 0;
      for (int64_t t = ids.size(1) - choice.scored; t < ids.size(1); ++t) {
        sum += log_p[t - 1][choice.tokens[static_cast<size_t>(t)]].item<double>();
      }
      EXPECT_NEAR(scores.tasks[1].log_likelihoods[q][c], sum, 1e-4) << "question " << q;
      sums.push_back(sum);
      by_length.push_back(sum / static_cast<double>(choice.bytes));
    }
    right += std::max_element(sums.begin(), sums.end()) - sums.begin() == question.gold;
    right_by_length +=
        std::max_element(by_length.begin(), by_length.end()) - by_length.begin() == question.gold;
  }
  const TaskScore& score = scores.tasks[1].score;
  EXPECT_EQ(score.questions, kQuestions);
  const double acc = static_cast<double>(right) / kQuestions;
  EXPECT_DOUBLE_EQ(score.acc, acc);
  EXPECT_DOUBLE_EQ(score.acc_stderr, std::sqrt(acc * (1 - acc) / (kQuestions - 1)));
  EXPECT_DOUBLE_EQ(score.acc_norm, static_cast<double>(right_by_length) / kQuestions);
}

TEST_F(EvaluateModel, TextsScoreAsWhenScoredAlone) {
  QAAS_ASSERT_OK_AND_ASSIGN(const EvaluationScores reference,
                            evaluate_model(original_.parts(), inputs_, nullptr, {}, {}));
  const ScoreReference compared{original_.ends, reference.texts};
  QAAS_ASSERT_OK_AND_ASSIGN(const EvaluationScores scores,
                            evaluate_model(other_.parts(), inputs_, &compared, {}, {}));
  const auto progress = [](double) {};
  for (size_t i = 0; i < 2; ++i) {
    QAAS_ASSERT_OK_AND_ASSIGN(
        const ScoredModel alone,
        score_model(other_.ends, 3, other_.blocks(), inputs_.texts[i], other_.rope(),
                    original_.ends, &reference.texts[i], progress, {}));
    EXPECT_EQ(scores.texts[i].score.loss, alone.score.loss);
    EXPECT_EQ(scores.texts[i].score.kl_divergence, alone.score.kl_divergence);
    EXPECT_GT(alone.score.kl_divergence, 0.1);
  }
}

TEST_F(EvaluateModel, EveryBlockIsMadeOnceForAllTextsAndTasks) {
  std::vector<int64_t> asked;
  BlockwiseModel model = other_.parts();
  model.block = [&](int64_t index) {
    asked.push_back(index);
    return other_.blocks()(index);
  };
  ASSERT_THAT(evaluate_model(model, inputs_, nullptr, {}, {}), IsOk());
  EXPECT_THAT(asked, ::testing::ElementsAre(0, 1, 2));
}

TEST_F(EvaluateModel, StreamsLiveWhereTheAllocatorPutsThem) {
  std::vector<void*> given;
  const TensorAllocator allocate = [&](at::IntArrayRef sizes) -> absl::StatusOr<torch::Tensor> {
    torch::Tensor tensor = torch::empty(sizes);
    given.push_back(tensor.data_ptr());
    return tensor;
  };
  QAAS_ASSERT_OK_AND_ASSIGN(
      const EvaluationScores scores,
      evaluate_model(other_.parts(), inputs_, nullptr, {.allocate = allocate}, {}));
  EXPECT_EQ(given.size(), 4u);
  EXPECT_EQ(scores.texts[1].hidden.data_ptr(), given[1]);
}

TEST_F(EvaluateModel, AnAllocatorThatFailsEndsTheScoring) {
  const TensorAllocator full = [](at::IntArrayRef) -> absl::StatusOr<torch::Tensor> {
    return absl::ResourceExhaustedError("disk full");
  };
  EXPECT_THAT(evaluate_model(other_.parts(), inputs_, nullptr, {.allocate = full}, {}),
              StatusIs(absl::StatusCode::kResourceExhausted, "disk full"));
}

TEST(TaskSequences, WhatChoicesShareIsComputedOnce) {
  const Choice yes{.tokens = {1, 2, 3, 4}, .scored = 1, .bytes = 3};
  const Choice no{.tokens = {1, 2, 3, 5}, .scored = 1, .bytes = 2};
  const Task task{.name = "yes or no", .questions = {{.choices = {yes, no}}}};
  const TaskSequences sequences(task);
  ASSERT_EQ(sequences.batches().size(), 1u);
  EXPECT_EQ(sequences.batches()[0].size(0), 1);
  EXPECT_EQ(sequences.batches()[0].size(1), 3);
}

TEST(ScoreChoices, TheAnswerIsTheLikeliestAndByLengthTheLikeliestPerByte) {
  Task task{.name = "t", .questions = std::vector<Question>(4)};
  for (Question& question : task.questions) {
    question.choices = {{.bytes = 2}, {.bytes = 10}};
    question.gold = 1;
  }
  // Right both ways; right only by length; wrong both ways; equal, so the first is the answer.
  const TaskScore score = score_choices(task, {{-4, -3}, {-4, -10}, {-1, -20}, {-6, -6}});
  EXPECT_EQ(score.acc, 0.25);
  EXPECT_EQ(score.acc_norm, 0.75);
  EXPECT_DOUBLE_EQ(score.acc_stderr, std::sqrt(0.25 * 0.75 / 3));
  EXPECT_DOUBLE_EQ(score.acc_norm_stderr, std::sqrt(0.75 * 0.25 / 3));
}

TEST(ScoreChoices, AnEmptyAnswerIsNeverChosenByLength) {
  const Task task{.name = "t", .questions = {{.choices = {{.bytes = 0}, {.bytes = 4}}, .gold = 1}}};
  const TaskScore score = score_choices(task, {{-1, -50}});
  EXPECT_EQ(score.acc, 0);
  EXPECT_EQ(score.acc_norm, 1);
}

}  // namespace
}  // namespace qaas
