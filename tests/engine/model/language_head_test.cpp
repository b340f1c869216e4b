#include "workers/engine/model/language_head.h"

#include "tests/support/tensor_matchers.h"

namespace qaas {
namespace {

using testing::is_near;

/// Few dimensions and a vocabulary so large that the tokens of a test take several chunks.
constexpr int64_t kVocab = 60000, kDim = 8, kWindows = 2, kSeq = 150;

struct HeadProblem {
  ModelEnds ends;
  torch::Tensor residual, ids;

  HeadProblem() {
    torch::manual_seed(11);
    ends.embedding = torch::randn({kVocab, kDim});
    ends.head = ends.embedding;
    ends.final_norm = torch::randn({kDim});
    ends.epsilon = 1e-5;
    residual = torch::randn({kWindows, kSeq, kDim});
    ids = torch::randint(kVocab, {kWindows, kSeq}, torch::kInt64);
  }
  /// Cross-entropy of all targets by torch's own functions, differentiable in `stream`.
  torch::Tensor plain_sum(const torch::Tensor& stream) const {
    const torch::Tensor x = stream.narrow(1, 0, kSeq - 1).reshape({-1, kDim});
    const torch::Tensor hidden =
        x * torch::rsqrt(x.square().mean(-1, true) + ends.epsilon) * ends.final_norm;
    return torch::nn::functional::cross_entropy(
        torch::mm(hidden, ends.head.t()), ids.narrow(1, 1, kSeq - 1).reshape({-1}),
        torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kSum));
  }
};

TEST(LanguageHead, ChunkedCrossEntropyAndGradientEqualTorchs) {
  const HeadProblem problem;
  const torch::Tensor leaf = problem.residual.clone().requires_grad_(true);
  const torch::Tensor expected = problem.plain_sum(leaf);
  (expected * 0.125).backward();
  const LanguageHead head(problem.ends, torch::kFloat32);
  const LanguageHead::Loss loss = head.cross_entropy(problem.residual, problem.ids, 0.125);
  EXPECT_NEAR(loss.sum, expected.item<double>(), 1e-5 * expected.item<double>());
  EXPECT_TRUE(is_near(loss.gradient, leaf.grad(), 1e-5));
}

TEST(LanguageHead, Bf16CrossEntropyIsCloseToFloat32) {
  const HeadProblem problem;
  const auto in = [&](torch::ScalarType compute) {
    return LanguageHead(problem.ends, compute).cross_entropy(problem.residual, problem.ids, 1.0);
  };
  const LanguageHead::Loss exact = in(torch::kFloat32), rounded = in(torch::kBFloat16);
  EXPECT_NEAR(rounded.sum, exact.sum, 5e-3 * exact.sum);
  EXPECT_TRUE(is_near(rounded.gradient, exact.gradient, 0.05));
}

TEST(LanguageHead, TheLastTokenOfAWindowHasNoGradient) {
  const HeadProblem problem;
  const LanguageHead head(problem.ends, torch::kFloat32);
  const LanguageHead::Loss loss = head.cross_entropy(problem.residual, problem.ids, 1.0);
  EXPECT_EQ(loss.gradient.select(1, kSeq - 1).abs().max().item<float>(), 0);
  EXPECT_GT(loss.gradient.select(1, kSeq - 2).abs().min().item<float>(), 0);
}

TEST(LanguageHead, ChunksCoverEveryRowOnceAndAreNormalised) {
  const HeadProblem problem;
  const torch::Tensor hidden = torch::randn({kWindows * kSeq, kDim});
  int64_t next = 0, chunks = 0;
  LanguageHead(problem.ends, torch::kFloat32)
      .for_each_chunk(hidden, [&](int64_t first, const torch::Tensor& log_p) {
        EXPECT_EQ(first, next);
        next += log_p.size(0);
        ++chunks;
        EXPECT_EQ(log_p.size(1), kVocab);
        EXPECT_LT(log_p.exp().sum(-1).sub(1).abs().max().item<float>(), 1e-4);
        EXPECT_TRUE(is_near(
            log_p[0], torch::log_softmax(torch::mv(problem.ends.head, hidden[first]), -1), 1e-5));
      });
  EXPECT_EQ(next, hidden.size(0));
  EXPECT_GT(chunks, 1);
}

}  // namespace
}  // namespace qaas
