#include "workers/engine/train/block_ap.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tensor_matchers.h"
#include "tests/support/tiny_llama.h"
#include "workers/engine/model/activation_cache.h"
#include "workers/engine/quant/fake_quant_projection.h"
#include "workers/engine/quant/quantized_block.h"

namespace qaas {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::same_bits;
using testing::StatusIs;
using testing::TemporaryFolder;
using testing::write_tiny_llama;

constexpr int64_t kWindows = 6, kSeq = 16;

class BlockApTest : public ::testing::Test {
 protected:
  BlockApTest()
      : model_(write_tiny_llama(folder_.path())), rope_(make_rope_table(model_.config(), kSeq)) {
    torch::manual_seed(1);
    inputs_ = torch::randn({kWindows, kSeq, model_.config().hidden_size});
    DecoderBlock original = dense();
    targets_ = run_block(original, inputs_, rope_, torch::kFloat32);
  }

  DecoderBlock dense() const {
    return load_block(
               model_.config(),
               [this](const std::string& name) -> const TensorView& { return model_.tensor(name); },
               0)
        .value();
  }
  DecoderBlock prepared(const AffineGrid& grid, const std::string& full_precision = "") const {
    DecoderBlock block = dense();
    prepare_block(block, [&](const std::string& name, int64_t) -> std::optional<AffineGrid> {
      if (name == full_precision) return std::nullopt;
      return grid;
    });
    return block;
  }
  absl::StatusOr<TrainingReport> train(
      DecoderBlock& block, const BlockApOptions& options,
      const StepSink& sink = [](const TrainingStep&) {}, std::stop_token stop = {}) const {
    return block_ap(block, inputs_, targets_, rope_, options, sink, stop);
  }
  double error(DecoderBlock& block) const {
    return torch::mse_loss(run_block(block, inputs_, rope_, torch::kFloat32), targets_)
        .item<double>();
  }

  TemporaryFolder folder_;
  ModelFolder model_;
  RopeTable rope_;
  torch::Tensor inputs_, targets_;
  /// Larger than published: the model is tiny and so is the training.
  const BlockApOptions options_{.epochs = 4,
                                .scale = {.learning_rate = 1e-3},
                                .zero_point = {.learning_rate = 1e-3},
                                .weight = {.learning_rate = 1e-3},
                                .norm = {.learning_rate = 1e-3},
                                .clip_norm = 1.0};
};

TEST_F(BlockApTest, LowersTheErrorWhileEveryWeightStaysOnTheGrid) {
  for (const AffineGrid& grid : {AffineGrid{.bits = 2, .group_size = 32},
                                 AffineGrid{.bits = 3, .group_size = 64, .symmetric = true}}) {
    for (const auto compute : {torch::kFloat32, torch::kBFloat16}) {
      DecoderBlock block = prepared(grid);
      const double before = error(block);
      BlockApOptions options = options_;
      options.epochs = 12;  // more steps than both ends of the report hold
      options.compute = compute;
      const auto report = train(block, options);
      ASSERT_THAT(report, IsOk());
      EXPECT_LT(error(block), 0.75 * before);
      EXPECT_LT(report->final_loss(), report->initial_loss());
      for (const auto& [name, projection] : block->projections()) {
        const auto fake = std::dynamic_pointer_cast<FakeQuantProjection>(projection);
        const QuantizedWeight weight = fake->to_quantized_weight();
        const torch::Tensor scale = torch::tensor(weight.scales).view({weight.rows, -1, 1});
        const torch::Tensor zero = torch::tensor(weight.zero_points).view({weight.rows, -1, 1});
        const torch::Tensor codes =
            fake->effective_weight().view({weight.rows, -1, grid.group_size}) / scale + zero;
        const torch::Tensor nearest = torch::round(codes);
        EXPECT_LT((codes - nearest).abs().max().item<float>(), 1e-4) << name;
        EXPECT_GE(nearest.min().item<float>(), 0) << name;
        EXPECT_LE(nearest.max().item<float>(), grid.max_code()) << name;
      }
    }
  }
}

std::map<std::string, torch::Tensor> copy_of(const DecoderBlock& block) {
  std::map<std::string, torch::Tensor> parameters;
  for (const auto& item : block->named_parameters()) parameters[item.key()] = item.value().clone();
  return parameters;
}

/// "scale", "zero_point", "weight" of a projection, or "norm".
std::string kind_of(const std::string& name) {
  if (name.find("layernorm") != std::string::npos) return "norm";
  return name.substr(name.rfind('.') + 1);
}

struct TrainableCase {
  BlockApTrainable trainable;
  std::set<std::string> kinds;  ///< that change
};
class BlockApTrainables : public BlockApTest,
                          public ::testing::WithParamInterface<TrainableCase> {};
INSTANTIATE_TEST_SUITE_P(
    All, BlockApTrainables,
    ::testing::Values(TrainableCase{BlockApTrainable::kClipping, {"scale", "zero_point"}},
                      TrainableCase{BlockApTrainable::kScaleZero, {"scale", "zero_point"}},
                      TrainableCase{BlockApTrainable::kRounding, {"weight"}},
                      TrainableCase{BlockApTrainable::kScaleZeroRounding,
                                    {"scale", "zero_point", "weight"}},
                      TrainableCase{BlockApTrainable::kScaleZeroWeight,
                                    {"scale", "zero_point", "weight", "norm"}},
                      TrainableCase{BlockApTrainable::kWeight, {"weight", "norm"}}));

TEST_P(BlockApTrainables, LowersTheErrorByChangingThatAndNothingElse) {
  DecoderBlock block = prepared({.bits = 2, .group_size = 32});
  const auto before = copy_of(block);
  const double untrained = error(block);
  BlockApOptions options = options_;
  options.trainable = GetParam().trainable;
  options.epochs = 12;
  options.clip_factor.learning_rate = 1e-2;
  ASSERT_THAT(train(block, options), IsOk());
  EXPECT_LT(error(block), 0.95 * untrained);
  EXPECT_EQ(before.size(), 7u * 3 + 2);
  for (const auto& item : block->named_parameters()) {
    EXPECT_EQ(!torch::equal(item.value(), before.at(item.key())),
              GetParam().kinds.contains(kind_of(item.key())))
        << item.key();
    EXPECT_FALSE(item.value().requires_grad()) << item.key();
    EXPECT_FALSE(item.value().grad().defined()) << item.key();
  }
}

TEST_P(BlockApTrainables, ASymmetricGridKeepsItsZeroPoint) {
  DecoderBlock block = prepared({.bits = 4, .group_size = 32, .symmetric = true});
  const double untrained = error(block);
  BlockApOptions options = options_;
  options.trainable = GetParam().trainable;
  ASSERT_THAT(train(block, options), IsOk());
  EXPECT_LT(error(block), untrained);
  for (const auto& item : block->named_parameters()) {
    if (kind_of(item.key()) != "zero_point") continue;
    EXPECT_TRUE(same_bits(item.value(), torch::full_like(item.value(), 8.0))) << item.key();
  }
}

TEST_F(BlockApTest, RoundingMovesNoWeightFurtherThanHalfAStep) {
  DecoderBlock block = prepared({.bits = 2, .group_size = 32});
  const auto before = copy_of(block);
  BlockApOptions options = options_;
  options.trainable = BlockApTrainable::kRounding;
  options.unit = LearningRateUnit::kStepSize;
  options.weight.learning_rate = 0.2;  // many weights reach the bound
  ASSERT_THAT(train(block, options), IsOk());
  double furthest = 0;
  for (const auto& [name, projection] : block->projections()) {
    const auto fake = std::dynamic_pointer_cast<FakeQuantProjection>(projection);
    const torch::Tensor moved = (fake->weight() - before.at(name + ".weight")).abs();
    const torch::Tensor step = effective_scale(fake->qparams().scale);
    furthest = std::max(
        furthest,
        (moved.view({step.size(0), step.size(1), -1}) / step.unsqueeze(-1)).max().item<double>());
  }
  EXPECT_NEAR(furthest, 0.5, 1e-5);
}

TEST_F(BlockApTest, ALearningRateOfZeroKeepsThoseParameters) {
  DecoderBlock block = prepared({.bits = 2, .group_size = 32});
  const auto before = copy_of(block);
  BlockApOptions options = options_;
  options.norm.learning_rate = 0;
  options.zero_point.learning_rate = 0;
  ASSERT_THAT(train(block, options), IsOk());
  for (const auto& item : block->named_parameters()) {
    const std::string kind = kind_of(item.key());
    EXPECT_EQ(torch::equal(item.value(), before.at(item.key())),
              kind == "norm" || kind == "zero_point")
        << item.key();
  }
}

// AdamW's first step moves every parameter with a gradient by its learning rate.
TEST_F(BlockApTest, InStepSizesTheRateFollowsTheProjectionsScale) {
  DecoderBlock block = prepared({.bits = 2, .group_size = 32});
  for (const auto& [name, projection] : block->projections()) {
    // Zero points have a gradient only where weights lie outside the grid.
    std::dynamic_pointer_cast<FakeQuantProjection>(projection)->qparams().scale.mul_(0.7);
  }
  const auto before = copy_of(block);
  BlockApOptions options = options_;
  options.epochs = 1;
  options.batch_size = kWindows;
  options.unit = LearningRateUnit::kStepSize;
  options.scale.learning_rate = options.weight.learning_rate = 0.01;
  options.zero_point.learning_rate = options.norm.learning_rate = 0.02;
  ASSERT_THAT(train(block, options), IsOk());
  const auto moved = [&](const std::string& name, const torch::Tensor& now) {
    return (now - before.at(name)).abs().max().item<double>();
  };
  for (const auto& [name, projection] : block->projections()) {
    const auto fake = std::dynamic_pointer_cast<FakeQuantProjection>(projection);
    const double step = effective_scale(before.at(name + ".scale")).mean().item<double>();
    EXPECT_NEAR(moved(name + ".weight", fake->weight()), 0.01 * step, 1e-3 * step) << name;
    EXPECT_NEAR(moved(name + ".scale", fake->qparams().scale), 0.01 * step, 1e-3 * step) << name;
    EXPECT_NEAR(moved(name + ".zero_point", fake->qparams().zero_point), 0.02, 1e-4) << name;
  }
  for (const auto& [name, norm] : block->norms()) EXPECT_NEAR(moved(name, norm), 0.02, 1e-4);
}

TEST_F(BlockApTest, HeldOutWindowsAreMeasuredAndNeverTrainedOn) {
  BlockApOptions options = options_;
  options.validation_windows = 2;
  options.restore_best = false;
  DecoderBlock block = prepared({.bits = 2, .group_size = 32});
  const auto loss_of_last_two = [&] {
    return torch::mse_loss(run_block(block, inputs_.slice(0, 4), rope_, torch::kFloat32),
                           targets_.slice(0, 4))
        .item<double>();
  };
  const double before = loss_of_last_two();
  const auto report = train(block, options);
  ASSERT_THAT(report, IsOk());
  ASSERT_EQ(report->validation_losses.size(), 5u);
  EXPECT_NEAR(report->validation_losses.front(), before, 1e-5 * before);
  EXPECT_NEAR(report->validation_losses.back(), loss_of_last_two(), 1e-5 * before);
  EXPECT_EQ(report->tokens, 4 * 4 * kSeq);
  EXPECT_EQ(report->kept_epoch, 4);
  // The same training without those windows gives the same bits.
  DecoderBlock alone = prepared({.bits = 2, .group_size = 32});
  options.validation_windows = 0;
  ASSERT_THAT(block_ap(alone, inputs_.slice(0, 0, 4), targets_.slice(0, 0, 4), rope_, options,
                       [](const TrainingStep&) {}, {}),
              IsOk());
  for (const auto& item : block->named_parameters()) {
    EXPECT_TRUE(same_bits(item.value(), alone->named_parameters()[item.key()])) << item.key();
  }
}

TEST_P(BlockApTrainables, KeepsTheEpochThatDidBestOnHeldOutWindows) {
  BlockApOptions options = options_;
  options.trainable = GetParam().trainable;
  options.validation_windows = 2;
  options.schedule.kind = LearningRateShape::Kind::kConstant;
  options.scale.learning_rate = options.weight.learning_rate = 0.03;         // so far too much that
  options.zero_point.learning_rate = options.clip_factor.learning_rate = 1;  // it soon does harm
  options.norm.learning_rate = 0.1;
  options.epochs = 6;
  DecoderBlock block = prepared({.bits = 2, .group_size = 32});
  const auto report = train(block, options);
  ASSERT_THAT(report, IsOk());
  const auto& losses = report->validation_losses;
  const auto best = std::min_element(losses.begin(), losses.end());
  EXPECT_EQ(report->kept_epoch, best - losses.begin());
  EXPECT_LT(report->kept_epoch, 6) << "the test wants training to do harm in the end";
  const double kept = torch::mse_loss(run_block(block, inputs_.slice(0, 4), rope_, torch::kFloat32),
                                      targets_.slice(0, 4))
                          .item<double>();
  EXPECT_NEAR(kept, *best, 1e-5 * *best);
}

TEST_F(BlockApTest, StopsAfterEpochsInARowThatDidNotHelp) {
  BlockApOptions options = options_;
  options.validation_windows = 2;
  options.patience = 2;
  options.epochs = 20;
  options.schedule.kind = LearningRateShape::Kind::kConstant;
  options.scale.learning_rate = options.weight.learning_rate = 0.03;
  DecoderBlock block = prepared({.bits = 2, .group_size = 32});
  const auto report = train(block, options);
  ASSERT_THAT(report, IsOk());
  const auto epochs = static_cast<int64_t>(report->validation_losses.size()) - 1;
  EXPECT_LT(epochs, 20);
  EXPECT_EQ(report->kept_epoch, epochs - 2);
  EXPECT_EQ(report->losses.size(), static_cast<size_t>(2 * epochs));
}

TEST_F(BlockApTest, WithoutAWindowToTrainOnTheOptionIsRefused) {
  BlockApOptions options = options_;
  options.validation_windows = kWindows;
  DecoderBlock block = prepared({.bits = 2, .group_size = 32});
  EXPECT_THAT(train(block, options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("fewer than the 6 windows")));
}

TEST_F(BlockApTest, ClippingTheGradientChangesNoSignOnlyItsSize) {
  BlockApOptions options = options_;
  options.epochs = 1;
  const auto trained_with = [&](double clip_norm) {
    options.clip_norm = clip_norm;
    options.scale.epsilon = options.weight.epsilon = 1;  // so that the size matters to AdamW
    DecoderBlock block = prepared({.bits = 2, .group_size = 32});
    const auto before = copy_of(block);
    EXPECT_THAT(train(block, options), IsOk());
    const std::string name = "self_attn.q_proj.weight";
    return (block->named_parameters()[name] - before.at(name)).norm().item<double>();
  };
  const double free = trained_with(0);
  EXPECT_EQ(trained_with(1e6), free);
  EXPECT_LT(trained_with(1e-3), 0.5 * free);
}

TEST_F(BlockApTest, StreamsInFilesGiveTheSameBits) {
  ActivationCache cache(folder_ / "scratch", 0);
  const torch::Tensor inputs = cache.empty(inputs_.sizes(), torch::kFloat32).value();
  const torch::Tensor targets = cache.empty(targets_.sizes(), torch::kFloat32).value();
  inputs.copy_(inputs_);
  targets.copy_(targets_);
  BlockApOptions options = options_;
  options.shuffle = true;
  DecoderBlock one = prepared({.bits = 2, .group_size = 32});
  DecoderBlock other = prepared({.bits = 2, .group_size = 32});
  ASSERT_THAT(train(one, options), IsOk());
  ASSERT_THAT(block_ap(other, inputs, targets, rope_, options, [](const TrainingStep&) {}, {}),
              IsOk());
  for (const auto& item : one->named_parameters()) {
    EXPECT_TRUE(same_bits(item.value(), other->named_parameters()[item.key()])) << item.key();
  }
}

TEST_F(BlockApTest, AProjectionKeptInFullPrecisionIsUntouched) {
  DecoderBlock block = prepared({.bits = 2, .group_size = 32}, "mlp.down_proj");
  ASSERT_THAT(train(block, options_), IsOk());
  const DecoderBlock original = dense();
  ASSERT_EQ(block->projections().back().first, "mlp.down_proj");
  EXPECT_TRUE(same_bits(block->projections().back().second->effective_weight(),
                        original->projections().back().second->effective_weight()));
}

TEST_F(BlockApTest, ReportsEveryStepWithTheMeanSquaredError) {
  DecoderBlock block = prepared({.bits = 2, .group_size = 32});
  const torch::Tensor first_output =
      run_block(block, inputs_.slice(0, 0, 4), rope_, torch::kFloat32);
  std::vector<TrainingStep> steps;
  BlockApOptions options = options_;
  options.epochs = 2;
  options.batch_size = 4;  // 4 then 2 windows
  const auto report = train(block, options, [&](const TrainingStep& s) { steps.push_back(s); });
  ASSERT_THAT(report, IsOk());
  ASSERT_EQ(steps.size(), 4u);
  for (size_t i = 0; i < steps.size(); ++i) {
    EXPECT_EQ(steps[i].step, int64_t(i) + 1);
    EXPECT_EQ(steps[i].step_count, 4);
    EXPECT_EQ(steps[i].tokens, (i % 2 == 0 ? 4 : 2) * kSeq);
    EXPECT_EQ(steps[i].loss, report->losses[i]);
  }
  EXPECT_EQ(report->tokens, 2 * kWindows * kSeq);
  const double expected = torch::mse_loss(first_output, targets_.slice(0, 0, 4)).item<double>();
  EXPECT_NEAR(steps[0].loss, expected, 1e-5 * expected);
}

TEST_F(BlockApTest, SameOptionsGiveTheSameBits) {
  BlockApOptions options = options_;
  options.shuffle = true;
  const auto trained = [&] {
    DecoderBlock block = prepared({.bits = 2, .group_size = 32});
    EXPECT_THAT(train(block, options), IsOk());
    return block->projections()[0].second->effective_weight();
  };
  const torch::Tensor once = trained();
  EXPECT_TRUE(same_bits(trained(), once));
  options.seed = 3;
  EXPECT_FALSE(torch::equal(trained(), once));
}

TEST_F(BlockApTest, AStreamAdvancesInPlaceToTheSameBits) {
  DecoderBlock block = dense();
  const torch::Tensor stream = inputs_.clone();
  run_block_into(block, stream, stream, rope_, torch::kFloat32);
  EXPECT_TRUE(same_bits(stream, targets_));
}

TEST_F(BlockApTest, StopsAtTheNextStepWhenAsked) {
  std::stop_source stop;
  DecoderBlock block = prepared({.bits = 2, .group_size = 32});
  int64_t last = 0;
  const auto report = train(
      block, options_,
      [&](const TrainingStep& step) {
        last = step.step;
        if (step.step == 2) stop.request_stop();
      },
      stop.get_token());
  EXPECT_THAT(report, StatusIs(absl::StatusCode::kCancelled, HasSubstr("stopped")));
  EXPECT_EQ(last, 2);
}

TEST_F(BlockApTest, DivergenceIsAnErrorThatNamesTheStep) {
  inputs_[2][0][0] = std::numeric_limits<float>::infinity();
  DecoderBlock block = prepared({.bits = 2, .group_size = 32});
  EXPECT_THAT(train(block, options_),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("not finite at step 2 of 12")));
}

}  // namespace
}  // namespace qaas
