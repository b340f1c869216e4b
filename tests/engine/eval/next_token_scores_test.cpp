#include "workers/engine/eval/next_token_scores.h"

#include "tests/support/tensor_matchers.h"

namespace qaas {
namespace {

using testing::is_near;
using testing::same_bits;

constexpr int64_t kTokens = 1500, kDim = 24, kVocab = 5000;  // several chunks of each

class NextTokenScoresTest : public ::testing::Test {
 protected:
  NextTokenScoresTest() {
    torch::manual_seed(3);
    ends_.head = torch::randn({kVocab, kDim});
    other_ends_.head = torch::randn({kVocab, kDim}).to(torch::kBFloat16);
    hidden_ = torch::randn({kTokens, kDim});
    other_hidden_ = torch::randn({kTokens, kDim});
    targets_ = torch::randint(kVocab, {kTokens}, torch::kInt64);
  }
  static torch::Tensor log_probabilities(const ModelEnds& ends, const torch::Tensor& hidden) {
    return torch::log_softmax(
        torch::mm(hidden.to(torch::kFloat64), ends.head.to(torch::kFloat64).t()), -1);
  }

  ModelEnds ends_, other_ends_;
  torch::Tensor hidden_, other_hidden_;  // [tokens, dim]
  torch::Tensor targets_;                // [tokens]
};

TEST_F(NextTokenScoresTest, EqualTheWholeMatrixOfLogits) {
  const HiddenStates reference{other_ends_, other_hidden_};
  const NextTokenScores scores = score_next_tokens({ends_, hidden_}, targets_, &reference);
  const torch::Tensor log_p = log_probabilities(ends_, hidden_);
  const torch::Tensor log_q = log_probabilities(other_ends_, other_hidden_);
  EXPECT_TRUE(
      is_near(scores.log_likelihood, log_p.gather(1, targets_.unsqueeze(1)).squeeze(1), 1e-6));
  EXPECT_TRUE(is_near(scores.divergence, (log_q.exp() * (log_q - log_p)).sum(1), 1e-6));
  EXPECT_TRUE(torch::equal(scores.agrees, log_p.argmax(1) == log_q.argmax(1)));
}

TEST_F(NextTokenScoresTest, AModelAgreesWithItselfExactly) {
  const HiddenStates reference{ends_, hidden_};
  const NextTokenScores scores = score_next_tokens({ends_, hidden_}, targets_, &reference);
  EXPECT_TRUE(same_bits(scores.divergence, torch::zeros({kTokens}, torch::kFloat64)));
  EXPECT_TRUE(scores.agrees.all().item<bool>());
}

TEST_F(NextTokenScoresTest, LogitsFarApartKeepTheirLikelihood) {
  const torch::Tensor large = hidden_ * 100;  // logits in the thousands
  const NextTokenScores scores = score_next_tokens({ends_, large}, targets_, nullptr);
  EXPECT_TRUE(is_near(scores.log_likelihood,
                      log_probabilities(ends_, large).gather(1, targets_.unsqueeze(1)).squeeze(1),
                      1e-6));
}

TEST_F(NextTokenScoresTest, OfEqualLogitsTheFirstIsTheLikeliest) {
  ModelEnds flat;
  flat.head = torch::zeros({kVocab, kDim});
  ModelEnds first = flat;
  first.head = torch::zeros({kVocab, kDim});
  first.head[0] = 1;
  const torch::Tensor ones = torch::ones({kTokens, kDim});
  const HiddenStates reference{first, ones};
  EXPECT_TRUE(score_next_tokens({flat, ones}, targets_, &reference).agrees.all().item<bool>());
}

}  // namespace
}  // namespace qaas
