#include "workers/engine/model/ops.h"

#include <functional>

#include "tests/support/tensor_matchers.h"

namespace qaas {
namespace {

using testing::is_near;

/// Against the reference in the same type: float32 sums in another order; bfloat16 rounds at other
/// places, 2^-8 each.
double tolerance(torch::ScalarType compute) { return compute == torch::kFloat32 ? 5e-6 : 3e-2; }

using Op = std::function<torch::Tensor(const std::vector<torch::Tensor>&)>;

/// Output and gradients of both forms on the same inputs and output gradient.
void expect_equal_forms(const Op& fused, const Op& reference,
                        const std::vector<torch::Tensor>& inputs, double relative) {
  const auto outputs_of = [&](const Op& op) {
    std::vector<torch::Tensor> leaves;
    for (const torch::Tensor& input : inputs) {
      leaves.push_back(input.detach().clone().requires_grad_(true));
    }
    const torch::Tensor out = op(leaves);
    torch::manual_seed(7);
    out.backward(torch::randn(out.sizes()).to(out.scalar_type()));
    std::vector<torch::Tensor> results{out.detach()};
    for (const torch::Tensor& leaf : leaves) results.push_back(leaf.grad());
    return results;
  };
  const auto actual = outputs_of(fused), expected = outputs_of(reference);
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_EQ(actual[i].scalar_type(), expected[i].scalar_type());
    EXPECT_TRUE(is_near(actual[i], expected[i], relative))
        << (i == 0 ? "output" : "gradient of input " + std::to_string(i - 1));
  }
}

class Ops : public ::testing::TestWithParam<torch::ScalarType> {
 protected:
  Ops() { torch::manual_seed(3); }
  torch::ScalarType compute() const { return GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(Types, Ops, ::testing::Values(torch::kFloat32, torch::kBFloat16),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST_P(Ops, RmsNormEqualsTheReference) {
  for (const int64_t dim : {1, 16, 50, 288}) {
    expect_equal_forms(
        [&](const auto& x) { return ops::rms_norm(x[0], x[1], 1e-5, compute()); },
        [&](const auto& x) { return ops::reference::rms_norm(x[0], x[1], 1e-5, compute()); },
        {torch::randn({37, dim}) * 3.0, torch::randn({dim})}, tolerance(compute()));
  }
}

TEST_P(Ops, RmsNormOfZerosIsZero) {
  const torch::Tensor zeros = torch::zeros({3, 32});
  EXPECT_TRUE(
      torch::equal(ops::rms_norm(zeros, torch::ones({32}), 1e-6, compute()), zeros.to(compute())));
}

TEST_P(Ops, SwigluEqualsTheReference) {
  for (const int64_t width : {1, 17, 96, 768}) {
    expect_equal_forms(
        [](const auto& x) { return ops::swiglu(x[0], x[1]); },
        [](const auto& x) { return ops::reference::swiglu(x[0], x[1]); },
        {(torch::randn({19, width}) * 4.0).to(compute()), torch::randn({19, width}).to(compute())},
        tolerance(compute()));
  }
}

struct AttentionCase {
  int64_t batch, seq, heads, kv_heads, head_dim;
};

TEST_P(Ops, CausalAttentionEqualsTheReference) {
  for (const AttentionCase& c : {AttentionCase{2, 12, 4, 4, 16}, AttentionCase{3, 17, 6, 2, 48},
                                 AttentionCase{1, 33, 4, 1, 8}, AttentionCase{2, 1, 2, 1, 64},
                                 AttentionCase{1, 5, 3, 3, 2}, AttentionCase{1, 70, 2, 2, 32}}) {
    SCOPED_TRACE(::testing::Message() << c.batch << "x" << c.seq << ", " << c.heads << " heads, "
                                      << c.kv_heads << " of keys, dim " << c.head_dim);
    const torch::Tensor angle = torch::rand({c.seq, c.head_dim / 2}) * 6.0;
    const torch::Tensor cosine = torch::cos(angle), sine = torch::sin(angle);
    const ops::AttentionShape shape{c.batch, c.heads, c.kv_heads};
    const auto random = [&](int64_t heads) {
      return torch::randn({c.batch * c.seq, heads * c.head_dim}).to(compute());
    };
    expect_equal_forms(
        [&](const auto& x) { return ops::causal_attention(x[0], x[1], x[2], cosine, sine, shape); },
        [&](const auto& x) {
          return ops::reference::causal_attention(x[0], x[1], x[2], cosine, sine, shape);
        },
        {random(c.heads), random(c.kv_heads), random(c.kv_heads)}, tolerance(compute()));
  }
}

TEST_P(Ops, AttentionSeesNothingThatComesLater) {
  const ops::AttentionShape shape{.batch = 1, .heads = 2, .kv_heads = 1};
  const torch::Tensor cosine = torch::ones({9, 8}), sine = torch::zeros({9, 8});
  const torch::Tensor q = torch::randn({9, 32}).to(compute());
  torch::Tensor k = torch::randn({9, 16}).to(compute()), v = torch::randn({9, 16}).to(compute());
  const torch::Tensor before = ops::causal_attention(q, k, v, cosine, sine, shape);
  k.slice(0, 5).fill_(3.0);
  v.slice(0, 5).fill_(-3.0);
  const torch::Tensor after = ops::causal_attention(q, k, v, cosine, sine, shape);
  EXPECT_TRUE(testing::same_bits(after.slice(0, 0, 5), before.slice(0, 0, 5)));
  EXPECT_FALSE(torch::equal(after.slice(0, 5), before.slice(0, 5)));
}

TEST_P(Ops, CrossEntropyEqualsTheReference) {
  for (const int64_t vocab : {2, 33, 1000}) {
    const torch::Tensor logits = (torch::randn({21, vocab}) * 5.0).to(compute());
    const torch::Tensor targets = torch::randint(vocab, {21}, torch::kInt64);
    torch::Tensor actual = logits.clone(), expected = logits.clone();
    const double sum = ops::cross_entropy_(actual, targets, 0.25);
    const double expected_sum = ops::reference::cross_entropy_(expected, targets, 0.25);
    EXPECT_NEAR(sum, expected_sum, 1e-5 * std::abs(expected_sum));
    EXPECT_TRUE(is_near(actual, expected, tolerance(compute())));
  }
}

TEST(OpsReference, CrossEntropyIsTorchs) {
  const torch::Tensor logits = (torch::randn({21, 50}) * 5.0).requires_grad_(true);
  const torch::Tensor targets = torch::randint(50, {21}, torch::kInt64);
  const torch::Tensor loss =
      0.5 *
      torch::nn::functional::cross_entropy(
          logits, targets, torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kSum));
  loss.backward();
  torch::Tensor gradient = logits.detach().clone();
  EXPECT_NEAR(0.5 * ops::cross_entropy_(gradient, targets, 0.5), loss.item<double>(), 1e-4);
  EXPECT_TRUE(is_near(gradient, logits.grad(), 1e-6));
}

/// Every term, alone and mixed, with and without a temperature.
std::vector<kernels::Distillation> distillations() {
  return {{.forward_kl = 1},
          {.reverse_kl = 1},
          {.jensen_shannon = 1},
          {.jensen_shannon = 4, .beta = 0.1f, .temperature = 2},
          {.forward_kl = 1, .teacher_entropy = 1},
          {.cross_entropy = 1},
          {.forward_kl = 2.8f,
           .reverse_kl = 1.2f,
           .teacher_entropy = 0.5f,
           .cross_entropy = 0.3f,
           .temperature = 2}};
}

TEST_P(Ops, DistillationEqualsTheReference) {
  for (const int64_t vocab : {2, 33, 1000}) {
    for (const kernels::Distillation& terms : distillations()) {
      const torch::Tensor logits = (torch::randn({21, vocab}) * 5.0).to(compute());
      const torch::Tensor teacher = (torch::randn({21, vocab}) * 5.0).to(compute());
      const torch::Tensor targets = torch::randint(vocab, {21}, torch::kInt64);
      for (const torch::Tensor& weights : {torch::Tensor(), torch::rand({21})}) {
        torch::Tensor actual = logits.clone(), expected = logits.clone();
        const double sum = ops::distillation_(actual, teacher, targets, weights, terms, 0.25);
        const double expected_sum =
            ops::reference::distillation_(expected, teacher, targets, weights, terms, 0.25);
        EXPECT_NEAR(sum, expected_sum, 1e-5 * std::abs(expected_sum));
        // Terms cancel in these gradients, so float32 keeps fewer digits of them.
        EXPECT_TRUE(is_near(actual, expected, 5 * tolerance(compute())));
      }
    }
  }
}

TEST_P(Ops, DistillationOfExtremeLogitsIsFiniteAndExact) {
  // Far apart: almost all probability on one token each, on different ones. Nearly equal: tiny
  // divergences. Both with an offset that overflows e^x.
  const torch::Tensor offset = torch::tensor({0.0f, 1e4f, -1e4f, 3e4f}).unsqueeze(1);  // [4, 1]
  for (const double spread : {300.0, 3e4}) {
    for (const kernels::Distillation& terms : distillations()) {
      const torch::Tensor logits = (torch::randn({4, 65}) * spread + offset).to(compute());
      const torch::Tensor teacher = (torch::randn({4, 65}) * spread - offset).to(compute());
      const torch::Tensor targets = torch::randint(65, {4}, torch::kInt64);
      torch::Tensor actual = logits.clone(), expected = logits.clone();
      const double sum = ops::distillation_(actual, teacher, targets, {}, terms, 1.0);
      const double expected_sum =
          ops::reference::distillation_(expected, teacher, targets, {}, terms, 1.0);
      EXPECT_TRUE(std::isfinite(sum));
      EXPECT_NEAR(sum, expected_sum, 1e-4 * std::abs(expected_sum) + 1e-4);
      EXPECT_TRUE(torch::isfinite(actual).all().item<bool>());
      // Gradients of reverse KL are differences of terms as large as the loss.
      const double largest = std::max(1.0, expected.abs().max().item<double>());
      EXPECT_LE((actual - expected).abs().max().item<double>(),
                tolerance(compute()) * largest + 1e-7 * std::abs(expected_sum));
    }
  }
}

TEST_P(Ops, TheTeacherItselfHasNoDivergenceLeft) {
  const torch::Tensor teacher = (torch::randn({8, 300}) * 4.0 + 1e3).to(compute());
  const torch::Tensor targets = torch::randint(300, {8}, torch::kInt64);
  for (kernels::Distillation terms : distillations()) {
    terms.cross_entropy = terms.teacher_entropy = 0;
    torch::Tensor gradient = teacher.clone();
    EXPECT_NEAR(ops::distillation_(gradient, teacher, targets, {}, terms, 1.0), 0, 1e-4);
    EXPECT_LT(gradient.abs().max().item<double>(), 1e-5);
  }
}

TEST(OpsTypes, ATeacherOfAnotherTypeIsAProgrammingError) {
  torch::Tensor logits = torch::zeros({2, 3});
  EXPECT_THROW(ops::distillation_(logits, torch::zeros({2, 3}, torch::kBFloat16),
                                  torch::zeros({2}, torch::kInt64), {}, {.forward_kl = 1}, 1.0),
               c10::Error);
}

TEST(OpsTypes, ProductsInAnotherTypeAreAProgrammingError) {
  EXPECT_THROW(
      ops::swiglu(torch::zeros({2, 2}, torch::kFloat16), torch::zeros({2, 2}, torch::kFloat16)),
      c10::Error);
}

}  // namespace
}  // namespace qaas
