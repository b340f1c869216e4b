#include "workers/engine/train/end_to_end.h"

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tensor_matchers.h"
#include "tests/support/tiny_llama.h"
#include "workers/engine/quant/packed_projection.h"
#include "workers/engine/quant/quantized_block.h"

namespace qaas {
namespace {

using ::testing::HasSubstr;
using testing::is_near;
using testing::IsOk;
using testing::same_bits;
using testing::StatusIs;
using testing::TemporaryFolder;
using testing::write_tiny_llama;

constexpr int64_t kWindows = 6, kSeq = 16;

class EndToEndTest : public ::testing::Test {
 protected:
  EndToEndTest()
      : model_(write_tiny_llama(folder_.path(), {.blocks = 3})),
        ends_(load_ends(model_.config(), source())),
        rope_(make_rope_table(model_.config(), kSeq)) {
    torch::manual_seed(1);
    ids_ = torch::randint(model_.config().vocab_size, {kWindows, kSeq}, torch::kInt64);
  }

  TensorSource source() const {
    return [this](const std::string& name) -> const TensorView& { return model_.tensor(name); };
  }
  /// All blocks, packed at 2 bits; one projection in full precision.
  std::vector<DecoderBlock> packed() const {
    std::vector<DecoderBlock> blocks;
    for (int64_t i = 0; i < model_.config().num_hidden_layers; ++i) {
      DecoderBlock block = load_block(model_.config(), source(), i).value();
      prepare_block(block, [&](const std::string& name, int64_t) -> std::optional<AffineGrid> {
        if (i == 1 && name == "self_attn.k_proj") return std::nullopt;
        return AffineGrid{.bits = 2, .group_size = 32};
      });
      blocks.push_back(make_packed_block(model_.config(), source(), i, convert_block(block)));
    }
    return blocks;
  }
  absl::StatusOr<TrainingReport> train(
      std::vector<DecoderBlock>& blocks, const EndToEndOptions& options,
      const StepSink& sink = [](const TrainingStep&) {}, std::stop_token stop = {}) const {
    return train_end_to_end(ends_, blocks, ids_, rope_, options, nullptr, {}, sink, stop);
  }

  static std::vector<torch::Tensor> scales(const std::vector<DecoderBlock>& blocks) {
    std::vector<torch::Tensor> result;
    for (const DecoderBlock& block : blocks) {
      for (const auto& [name, projection] : block->projections()) {
        const auto packed = std::dynamic_pointer_cast<PackedProjection>(projection);
        if (packed != nullptr) result.push_back(packed->scale());
      }
    }
    return result;
  }

  /// Gradients that one step over all windows takes. With a huge epsilon the first step of Adam is
  /// proportional to its gradient, so they can be read off the scales.
  std::vector<torch::Tensor> gradients(int64_t micro_batch_size, int64_t activation_budget) const {
    constexpr double kEpsilon = 1e6;
    std::vector<DecoderBlock> blocks = packed();
    std::vector<torch::Tensor> before;
    for (const torch::Tensor& scale : scales(blocks)) before.push_back(scale.clone());
    const auto report = train(blocks, {.batch_size = kWindows,
                                       .micro_batch_size = micro_batch_size,
                                       .scale = {.learning_rate = kEpsilon, .epsilon = kEpsilon},
                                       .schedule = {.kind = LearningRateShape::Kind::kConstant},
                                       .clip_norm = 0,
                                       .activation_budget = activation_budget});
    EXPECT_THAT(report, IsOk());
    std::vector<torch::Tensor> result;
    const auto after = scales(blocks);
    for (size_t i = 0; i < after.size(); ++i) result.push_back(before[i] - after[i].detach());
    return result;
  }

  static constexpr int64_t kKeep = int64_t{1} << 40, kRecompute = 0;

  TemporaryFolder folder_;
  ModelFolder model_;
  ModelEnds ends_;
  RopeTable rope_;
  torch::Tensor ids_;
};

TEST_F(EndToEndTest, GradientsAreThoseOfTheMeanCrossEntropyOfTheWholeModel) {
  std::vector<DecoderBlock> blocks = packed();
  for (const torch::Tensor& scale : scales(blocks)) scale.set_requires_grad(true);
  torch::Tensor stream = embed(ends_, ids_);
  for (DecoderBlock& block : blocks) stream = block->forward(stream, rope_, torch::kFloat32);
  const torch::Tensor logits =
      torch::mm(final_hidden(ends_, stream.narrow(1, 0, kSeq - 1).reshape({-1, stream.size(2)})),
                ends_.head.t());
  torch::nn::functional::cross_entropy(logits, ids_.narrow(1, 1, kSeq - 1).reshape({-1}))
      .backward();
  const auto expected = scales(blocks);
  const auto actual = gradients(kWindows, kKeep);
  ASSERT_EQ(actual.size(), 3u * 7 - 1);
  for (size_t i = 0; i < actual.size(); ++i) {
    // Read off the scales in float32, so to about 1e-3 of the largest.
    EXPECT_TRUE(is_near(actual[i], expected[i].grad(), 2e-3)) << "projection " << i;
  }
}

TEST_F(EndToEndTest, RunningBlocksAgainGivesTheGradientsOfKeepingTheirActivations) {
  const auto kept = gradients(kWindows, kKeep), again = gradients(kWindows, kRecompute);
  for (size_t i = 0; i < kept.size(); ++i) EXPECT_TRUE(same_bits(again[i], kept[i])) << i;
}

TEST_F(EndToEndTest, MicroBatchesAddUpToTheGradientOfTheBatch) {
  const auto whole = gradients(kWindows, kKeep);
  for (const int64_t micro : {1, 4}) {  // 4: the last one is smaller
    const auto parts = gradients(micro, kKeep);
    for (size_t i = 0; i < whole.size(); ++i) {
      EXPECT_TRUE(is_near(parts[i], whole[i], 2e-3)) << "projection " << i << ", micro " << micro;
    }
  }
}

TEST_F(EndToEndTest, LowersTheLossAndChangesOnlyScales) {
  for (const auto compute : {torch::kFloat32, torch::kBFloat16}) {
    std::vector<DecoderBlock> blocks = packed();
    std::vector<QuantizedBlock> before;
    for (const DecoderBlock& block : blocks) before.push_back(convert_block(block));
    const torch::Tensor dense = blocks[1]->projections()[1].second->effective_weight().clone();
    const auto report = train(blocks, {.epochs = 8,
                                       .batch_size = 3,
                                       .micro_batch_size = 2,
                                       .scale = {.learning_rate = 3e-3},
                                       .compute = compute});
    ASSERT_THAT(report, IsOk());
    EXPECT_LT(report->losses.back(), 0.95 * report->losses.front());
    EXPECT_EQ(report->tokens, 8 * kWindows * kSeq);
    for (size_t i = 0; i < blocks.size(); ++i) {
      const QuantizedBlock after = convert_block(blocks[i]);
      for (const auto& [name, weight] : before[i].projections) {
        EXPECT_EQ(after.projections.at(name).packed, weight.packed) << name;
        EXPECT_EQ(after.projections.at(name).zero_points, weight.zero_points) << name;
        EXPECT_NE(after.projections.at(name).scales, weight.scales) << name;
      }
      for (const auto& [name, norm] : before[i].norms) {
        EXPECT_TRUE(same_bits(after.norms.at(name), norm)) << name;
      }
    }
    EXPECT_TRUE(same_bits(blocks[1]->projections()[1].second->effective_weight(), dense));
    for (const torch::Tensor& scale : scales(blocks)) EXPECT_FALSE(scale.requires_grad());
  }
}

TEST_F(EndToEndTest, TheLossOfAStepIsTheMeanOverItsTokens) {
  std::vector<DecoderBlock> blocks = packed();
  torch::Tensor stream = embed(ends_, ids_.slice(0, 0, 4));
  {
    const torch::NoGradGuard no_grad;
    for (DecoderBlock& block : blocks) stream = block->forward(stream, rope_, torch::kFloat32);
  }
  const torch::Tensor hidden =
      final_hidden(ends_, stream.narrow(1, 0, kSeq - 1).reshape({-1, stream.size(2)}));
  const double expected =
      torch::nn::functional::cross_entropy(torch::mm(hidden, ends_.head.t()),
                                           ids_.slice(0, 0, 4).narrow(1, 1, kSeq - 1).reshape({-1}))
          .item<double>();
  std::vector<TrainingStep> steps;
  const auto report = train(blocks, {.batch_size = 4, .micro_batch_size = 3},
                            [&](const TrainingStep& s) { steps.push_back(s); });
  ASSERT_THAT(report, IsOk());
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_NEAR(steps[0].loss, expected, 1e-5 * expected);
  EXPECT_EQ(steps[0].tokens, 4 * kSeq);
  EXPECT_EQ(steps[1].tokens, 2 * kSeq);
  EXPECT_EQ(steps[1].step_count, 2);
}

TEST_F(EndToEndTest, SameOptionsGiveTheSameBitsWhateverIsKept) {
  const auto trained = [&](int64_t budget, uint64_t seed) {
    std::vector<DecoderBlock> blocks = packed();
    EXPECT_THAT(train(blocks, {.epochs = 2,
                               .batch_size = 2,
                               .scale = {.learning_rate = 1e-3},
                               .shuffle = true,
                               .seed = seed,
                               .activation_budget = budget}),
                IsOk());
    return scales(blocks).front();
  };
  const torch::Tensor once = trained(kKeep, 2);
  EXPECT_TRUE(same_bits(trained(kKeep, 2), once));
  EXPECT_TRUE(same_bits(trained(kRecompute, 2), once));
  EXPECT_FALSE(torch::equal(trained(kKeep, 3), once));
}

TEST_F(EndToEndTest, AFirstBlockInFullPrecisionLeavesTheOthersToTrain) {
  for (const int64_t budget : {kKeep, kRecompute}) {
    std::vector<DecoderBlock> blocks = packed();
    blocks[0] = load_block(model_.config(), source(), 0).value();
    const torch::Tensor before = scales(blocks).front().clone();
    ASSERT_THAT(train(blocks, {.scale = {.learning_rate = 1e-3}, .activation_budget = budget}),
                IsOk());
    EXPECT_FALSE(torch::equal(scales(blocks).front(), before));
  }
}

TEST_F(EndToEndTest, StopsWithinTheBatchWhenAsked) {
  std::stop_source stop;
  std::vector<DecoderBlock> blocks = packed();
  int64_t last = 0;
  const auto report = train(
      blocks, {.batch_size = 1},
      [&](const TrainingStep& step) {
        last = step.step;
        if (step.step == 2) stop.request_stop();
      },
      stop.get_token());
  EXPECT_THAT(report, StatusIs(absl::StatusCode::kCancelled, HasSubstr("stopped")));
  EXPECT_EQ(last, 2);
}

}  // namespace
}  // namespace qaas
