#include "workers/engine/train/block_ap.h"

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tensor_matchers.h"
#include "tests/support/tiny_llama.h"
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
                                .quant = {.learning_rate = 1e-3},
                                .weight = {.learning_rate = 1e-3},
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

TEST_F(BlockApTest, WeightsNormsScalesAndZeroPointsAllTrain) {
  DecoderBlock block = prepared({.bits = 2, .group_size = 32});
  std::map<std::string, torch::Tensor> before;
  for (const auto& item : block->named_parameters()) before[item.key()] = item.value().clone();
  ASSERT_THAT(train(block, options_), IsOk());
  EXPECT_EQ(before.size(), 7u * 3 + 2);
  for (const auto& item : block->named_parameters()) {
    EXPECT_FALSE(torch::equal(item.value(), before[item.key()])) << item.key();
    EXPECT_FALSE(item.value().requires_grad()) << item.key();
  }
}

TEST_F(BlockApTest, ASymmetricGridTrainsNoZeroPoint) {
  DecoderBlock block = prepared({.bits = 4, .group_size = 32, .symmetric = true});
  ASSERT_THAT(train(block, options_), IsOk());
  for (const auto& item : block->named_parameters()) {
    if (!item.key().ends_with("zero_point")) continue;
    EXPECT_TRUE(same_bits(item.value(), torch::full_like(item.value(), 8.0))) << item.key();
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
