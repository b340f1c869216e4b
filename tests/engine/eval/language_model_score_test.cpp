#include "workers/engine/eval/language_model_score.h"

#include <cmath>

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

constexpr int64_t kWindows = 5, kSeq = 20;

class ScoreModel : public ::testing::Test {
 protected:
  ScoreModel()
      : original_(write_tiny_llama(folder_ / "original", {.dtype = Dtype::kBf16})),
        other_(write_tiny_llama(folder_ / "other", {.blocks = 3, .seed = 2})) {
    torch::manual_seed(4);
    ids_ = torch::randint(96, {kWindows, kSeq}, torch::kInt64);
  }
  absl::StatusOr<ScoredModel> score(
      const ScoredLlama& model, const ScoredModel* reference,
      const ScoreProgress& progress = [](double) {}, std::stop_token stop = {}) const {
    return score_model(model.ends, model.block_count(), model.blocks(), ids_, model.rope(),
                       original_.ends, reference, progress, stop);
  }

  TemporaryFolder folder_;
  ScoredLlama original_, other_;
  torch::Tensor ids_;
};

TEST_F(ScoreModel, LossPerplexityAndDivergenceEqualADirectComputation) {
  QAAS_ASSERT_OK_AND_ASSIGN(const ScoredModel reference, score(original_, nullptr));
  QAAS_ASSERT_OK_AND_ASSIGN(const ScoredModel scored, score(other_, &reference));
  const torch::Tensor log_q = original_.log_probabilities(ids_);
  const torch::Tensor log_p = other_.log_probabilities(ids_);
  const torch::Tensor targets = ids_.narrow(1, 1, kSeq - 1).unsqueeze(-1);
  const double loss = -log_p.gather(2, targets).mean().item<double>();
  const double divergence = (log_q.exp() * (log_q - log_p)).sum(-1).mean().item<double>();
  EXPECT_NEAR(scored.score.loss, loss, 1e-5 * loss);
  EXPECT_NEAR(scored.score.perplexity, std::exp(loss), 1e-4 * std::exp(loss));
  EXPECT_NEAR(scored.score.kl_divergence, divergence, 1e-4 * divergence);
  EXPECT_GT(divergence, 0.1);
  EXPECT_NEAR(reference.score.loss, -log_q.gather(2, targets).mean().item<double>(), 1e-4);
}

TEST_F(ScoreModel, TheOriginalDoesNotDivergeFromItself) {
  QAAS_ASSERT_OK_AND_ASSIGN(const ScoredModel reference, score(original_, nullptr));
  QAAS_ASSERT_OK_AND_ASSIGN(const ScoredModel again, score(original_, &reference));
  EXPECT_EQ(again.score.kl_divergence, 0);
  EXPECT_EQ(again.score.top1_agreement, 1);
  EXPECT_EQ(again.score.loss_difference, 0);
  EXPECT_EQ(again.score.loss_difference_stderr, 0);
  EXPECT_EQ(again.score.loss, reference.score.loss);
}

TEST_F(ScoreModel, AgreementAndPairedDifferenceEqualADirectComputation) {
  QAAS_ASSERT_OK_AND_ASSIGN(const ScoredModel reference, score(original_, nullptr));
  QAAS_ASSERT_OK_AND_ASSIGN(const ScoredModel scored, score(other_, &reference));
  const torch::Tensor log_q = original_.log_probabilities(ids_);
  const torch::Tensor log_p = other_.log_probabilities(ids_);
  const torch::Tensor targets = ids_.narrow(1, 1, kSeq - 1).unsqueeze(-1);
  const torch::Tensor agree = (log_p.argmax(-1) == log_q.argmax(-1)).to(torch::kFloat64);
  EXPECT_DOUBLE_EQ(scored.score.top1_agreement, agree.mean().item<double>());
  const torch::Tensor losses = -log_p.gather(2, targets).squeeze(-1).mean(1);  // [windows]
  const torch::Tensor differences = losses + log_q.gather(2, targets).squeeze(-1).mean(1);
  const double root = std::sqrt(static_cast<double>(kWindows));
  EXPECT_NEAR(scored.score.loss_stderr, losses.std().item<double>() / root, 1e-6);
  EXPECT_NEAR(scored.score.loss_difference, differences.mean().item<double>(), 1e-6);
  EXPECT_NEAR(scored.score.loss_difference_stderr, differences.std().item<double>() / root, 1e-6);
  ASSERT_EQ(scored.window_losses.size(), size_t{kWindows});
  EXPECT_NEAR(scored.window_losses[3], losses[3].item<double>(), 1e-6);
}

TEST_F(ScoreModel, AModelThatKnowsNothingScoresTheLogOfItsVocabulary) {
  ScoredLlama blank(write_tiny_llama(folder_ / "blank", {},
                                     [](const std::string& name, std::vector<float>& values) {
                                       if (name == "lm_head.weight")
                                         values.assign(values.size(), 0.0f);
                                     }));
  QAAS_ASSERT_OK_AND_ASSIGN(const ScoredModel scored, score(blank, nullptr));
  EXPECT_NEAR(scored.score.loss, std::log(96.0), 1e-6);
  EXPECT_NEAR(scored.score.perplexity, 96.0, 1e-4);
}

TEST_F(ScoreModel, BlocksAreAskedForOnceInOrder) {
  std::vector<int64_t> asked;
  std::vector<double> progress;
  const auto scored = score_model(
      other_.ends, 3,
      [&](int64_t index) {
        asked.push_back(index);
        return other_.blocks()(index);
      },
      ids_, other_.rope(), other_.ends, nullptr, [&](double f) { progress.push_back(f); }, {});
  ASSERT_THAT(scored, IsOk());
  EXPECT_THAT(asked, ::testing::ElementsAre(0, 1, 2));
  EXPECT_THAT(progress, ::testing::ElementsAre(0.25, 0.5, 0.75));
}

TEST_F(ScoreModel, ABlockThatCannotBeMadeEndsTheScoring) {
  const auto scored = score_model(
      other_.ends, 3,
      [&](int64_t index) -> absl::StatusOr<DecoderBlock> {
        if (index == 1) return absl::InvalidArgumentError("block 1 is damaged");
        return other_.blocks()(index);
      },
      ids_, other_.rope(), other_.ends, nullptr, [](double) {}, {});
  EXPECT_THAT(scored, StatusIs(absl::StatusCode::kInvalidArgument, "block 1 is damaged"));
}

TEST_F(ScoreModel, StopsBetweenBlocksWhenAsked) {
  std::stop_source stop;
  double last = 0;
  const auto scored = score(
      other_, nullptr,
      [&](double fraction) {
        last = fraction;
        stop.request_stop();
      },
      stop.get_token());
  EXPECT_THAT(scored, StatusIs(absl::StatusCode::kCancelled, ::testing::HasSubstr("stopped")));
  EXPECT_EQ(last, 0.25);
}

}  // namespace
}  // namespace qaas
