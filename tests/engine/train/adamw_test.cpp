#include "workers/engine/train/adamw.h"

#include "tests/support/tensor_matchers.h"

namespace qaas {
namespace {

using testing::is_near;
using testing::same_bits;

torch::Tensor parameter(std::vector<int64_t> shape, uint64_t seed) {
  torch::manual_seed(seed);
  return torch::randn(shape);
}

/// Lets `gradient` be what backward left.
void leave_gradient(const torch::Tensor& parameter, const torch::Tensor& gradient) {
  torch::Tensor(parameter).mutable_grad() = gradient.clone();
}

TEST(AdamW, EqualsTorchsOverManySteps) {
  for (const double weight_decay : {0.0, 0.1}) {
    const torch::Tensor ours = parameter({33, 7}, 1);
    const torch::Tensor theirs = ours.clone().requires_grad_(true);
    AdamW optimizer;
    optimizer.add_group({ours}, {.learning_rate = 0.01,
                                 .beta1 = 0.8,
                                 .beta2 = 0.95,
                                 .epsilon = 1e-6,
                                 .weight_decay = weight_decay});
    torch::optim::AdamW reference(
        {theirs},
        torch::optim::AdamWOptions(0.01).betas({0.8, 0.95}).eps(1e-6).weight_decay(weight_decay));
    for (int step = 0; step < 12; ++step) {
      const torch::Tensor gradient = torch::randn({33, 7}) * std::pow(10.0, step % 4 - 2);
      const double factor = 1.0 - 0.05 * step;
      leave_gradient(ours, gradient);
      optimizer.step(factor, 0);
      leave_gradient(theirs, gradient);
      static_cast<torch::optim::AdamWOptions&>(reference.param_groups()[0].options())
          .lr(0.01 * factor);
      reference.step();
      ASSERT_TRUE(is_near(ours, theirs, 1e-6)) << "step " << step + 1;
    }
  }
}

TEST(AdamW, GroupsKeepTheirOwnRatesAndDropTheirGradients) {
  const torch::Tensor slow = parameter({16}, 2), fast = parameter({16}, 3);
  const torch::Tensor slow_before = slow.clone(), fast_before = fast.clone();
  AdamW optimizer;
  optimizer.add_group({slow}, {.learning_rate = 1e-3});
  optimizer.add_group({fast}, {.learning_rate = 1e-1});
  EXPECT_TRUE(slow.requires_grad());
  leave_gradient(slow, torch::ones({16}));
  leave_gradient(fast, torch::full({16}, 0.01));
  optimizer.step(1.0, 0);
  // The first step of Adam is the learning rate against the gradient's sign.
  EXPECT_TRUE(is_near(slow_before - slow.detach(), torch::full({16}, 1e-3), 1e-3));
  EXPECT_TRUE(is_near(fast_before - fast.detach(), torch::full({16}, 1e-1), 1e-3));
  EXPECT_FALSE(slow.grad().defined());
  EXPECT_FALSE(fast.grad().defined());
  optimizer.finish();
  EXPECT_FALSE(slow.requires_grad());
}

TEST(AdamW, AParameterWithoutGradientStaysAsItIs) {
  const torch::Tensor idle = parameter({8}, 4), busy = parameter({8}, 5), before = idle.clone();
  AdamW optimizer;
  optimizer.add_group({idle, busy}, {.learning_rate = 0.1, .weight_decay = 0.5});
  leave_gradient(busy, torch::ones({8}));
  optimizer.step(1.0, 1.0);
  EXPECT_TRUE(same_bits(idle.detach(), before));
}

TEST(AdamW, GradientsAreScaledToTheClipNormOverAllGroups) {
  // With a huge epsilon the first step is proportional to the gradient it sees.
  constexpr double kEpsilon = 1e6;
  const auto moved = [&](double clip_norm) {
    const torch::Tensor a = torch::zeros({2}), b = torch::zeros({1});
    AdamW optimizer;
    optimizer.add_group({a}, {.learning_rate = kEpsilon, .epsilon = kEpsilon});
    optimizer.add_group({b}, {.learning_rate = kEpsilon, .epsilon = kEpsilon});
    leave_gradient(a, torch::tensor({2.0f, 3.0f}));
    leave_gradient(b, torch::tensor({6.0f}));
    optimizer.step(1.0, clip_norm);
    return torch::cat({a.detach(), b.detach()});
  };
  const torch::Tensor gradient = torch::tensor({2.0f, 3.0f, 6.0f});  // norm 7
  EXPECT_TRUE(is_near(moved(0), -gradient, 1e-4));
  EXPECT_TRUE(is_near(moved(7.5), -gradient, 1e-4));
  EXPECT_TRUE(is_near(moved(0.35), -gradient / 20, 1e-4));
}

TEST(AdamW, AGradientThatIsNotFiniteUpdatesNothing) {
  const torch::Tensor good = parameter({8}, 6), bad = parameter({8}, 7), before = good.clone();
  AdamW optimizer;
  optimizer.add_group({good, bad}, {.learning_rate = 0.1});
  leave_gradient(good, torch::ones({8}));
  leave_gradient(bad, torch::full({8}, std::numeric_limits<float>::infinity()));
  EXPECT_FALSE(std::isfinite(optimizer.step(1.0, 0.5)));
  EXPECT_TRUE(same_bits(good.detach(), before));
  leave_gradient(good, torch::full({8}, 2.0));
  EXPECT_NEAR(optimizer.step(1.0, 0), std::sqrt(32.0), 1e-5);
}

}  // namespace
}  // namespace qaas
