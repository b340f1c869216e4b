#include "workers/engine/quant/activation_quant.h"

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tensor_matchers.h"
#include "tests/support/tiny_llama.h"
#include "workers/engine/quant/fake_quant_projection.h"
#include "workers/engine/quant/packed_projection.h"
#include "workers/engine/quant/quantized_block.h"

namespace qaas {
namespace {

using testing::same_bits;

torch::Tensor clip_of(double value) { return torch::full({1}, value, torch::kFloat32); }

TEST(ActivationQuant, FusedEqualsTheReferenceBitForBit) {
  torch::manual_seed(1);
  for (const auto type : {torch::kFloat32, torch::kBFloat16}) {
    torch::Tensor x = torch::randn({7, 96}) * 3;
    x[2].zero_();
    x[3].mul_(1e-30);
    for (const int bits : {4, 8}) {
      for (const int64_t group : {-1, 16, 32}) {
        for (const double clip : {1.0, 0.7, 0.05, 3.0, -1.0}) {
          const ActivationGrid grid{.bits = bits, .group_size = group};
          EXPECT_TRUE(same_bits(quantize_activations(x.to(type), clip_of(clip), grid),
                                quantize_activations_reference(x.to(type), clip_of(clip), grid)))
              << type << " " << bits << " bits, group " << group << ", clip " << clip;
        }
      }
    }
  }
}

TEST(ActivationQuant, GradientsEqualTheReference) {
  torch::manual_seed(2);
  const torch::Tensor values = torch::randn({5, 64}), weights = torch::randn({5, 64});
  for (const double clip : {1.0, 0.6}) {
    const ActivationGrid grid{.bits = 4, .group_size = 32};
    std::vector<torch::Tensor> grads;
    for (const auto& quantize : {quantize_activations, quantize_activations_reference}) {
      const torch::Tensor x = values.clone().requires_grad_(true);
      const torch::Tensor c = clip_of(clip).requires_grad_(true);
      (quantize(x, c, grid) * weights).sum().backward();
      grads.insert(grads.end(), {x.grad(), c.grad()});
    }
    EXPECT_TRUE(torch::allclose(grads[0], grads[2], 1e-6, 0)) << clip;
    EXPECT_NEAR(grads[1].item<double>(), grads[3].item<double>(), 1e-4) << clip;
  }
}

TEST(ActivationQuant, ClipGradientIsThatOfTheOutputWhereNothingRounds) {
  // Saturated inputs and inputs on a level: x_hat is linear in the clip there, so a difference
  // quotient is exact.
  const torch::Tensor x = torch::tensor({8.0f, -8.0f, 6.0f, 0.0f}).view({1, 4});
  const ActivationGrid grid{.bits = 4};
  const torch::Tensor clip = clip_of(0.5).requires_grad_(true);
  quantize_activations(x, clip, grid).mul(torch::tensor({1.0f, 2.0f, 4.0f, 8.0f})).sum().backward();
  // d / d c of 1·8c - 2·8c + 4·8c
  EXPECT_NEAR(clip.grad().item<double>(), 8 - 16 + 32, 1e-5);
}

TEST(ActivationQuant, ErrorIsAtMostHalfAStepOfEachGroup) {
  torch::manual_seed(3);
  const torch::Tensor x = torch::randn({6, 64});
  const torch::Tensor out = quantize_activations(x, clip_of(1), {.bits = 4, .group_size = 16});
  const torch::Tensor error = (out - x).abs().view({-1, 16}).amax(1);
  const torch::Tensor half_step = x.abs().view({-1, 16}).amax(1) / 14;
  EXPECT_TRUE((error <= half_step * (1 + 1e-5)).all().item<bool>());
}

TEST(ActivationQuant, UnclippedGradientPassesThroughUnchanged) {
  torch::manual_seed(4);
  const torch::Tensor x = torch::randn({3, 32}).requires_grad_(true), grad = torch::randn({3, 32});
  quantize_activations(x, clip_of(1), {.bits = 4}).backward(grad);
  EXPECT_TRUE(same_bits(x.grad(), grad));
}

class ActivationQuantBlock : public ::testing::Test {
 protected:
  ActivationQuantBlock()
      : model_(testing::write_tiny_llama(folder_ / "model", {.dtype = Dtype::kF16})),
        tensor_(
            [this](const std::string& name) -> const TensorView& { return model_.tensor(name); }) {}

  DecoderBlock prepared() const {
    DecoderBlock block = load_block(model_.config(), tensor_, 0).value();
    prepare_block(block, [](const std::string&, int64_t) { return AffineGrid{.group_size = 32}; });
    return block;
  }
  torch::Tensor run(DecoderBlock& block, torch::ScalarType compute) const {
    const torch::NoGradGuard no_grad;
    torch::manual_seed(1);
    return block->forward(torch::randn({2, 12, 64}), make_rope_table(model_.config(), 12), compute);
  }

  testing::TemporaryFolder folder_;
  ModelFolder model_;
  TensorSource tensor_;
  const ActivationOf w4a4_ = [](const std::string& name) -> std::optional<ActivationQuantizer> {
    if (name == "self_attn.k_proj") return std::nullopt;
    if (name == "mlp.down_proj") return ActivationQuantizer{.grid = {.bits = 8, .group_size = 32}};
    return ActivationQuantizer{.grid = {.bits = 4}, .clip = 0.75f};
  };
};

TEST_F(ActivationQuantBlock, ConvertedBlockGivesTheOutputOfTheTrainedOne) {
  DecoderBlock block = prepared();
  DecoderBlock plain = make_packed_block(model_.config(), tensor_, 0, convert_block(block));
  apply_activation_quantization(block, w4a4_);
  const QuantizedBlock quantized = convert_block(block);
  DecoderBlock packed = make_packed_block(model_.config(), tensor_, 0, quantized);
  for (const auto compute : {torch::kFloat32, torch::kBFloat16}) {
    EXPECT_TRUE(same_bits(run(packed, compute), run(block, compute))) << compute;
    EXPECT_FALSE(torch::equal(run(packed, compute), run(plain, compute))) << compute;
  }
  EXPECT_EQ(convert_block(packed).activations, quantized.activations);
}

TEST_F(ActivationQuantBlock, OnlyTheNamedInputsAreQuantizedEachInItsOwnWay) {
  DecoderBlock block = prepared();
  apply_activation_quantization(block, w4a4_);
  const QuantizedBlock quantized = convert_block(block);
  EXPECT_EQ(quantized.projections.size(), 7u);
  EXPECT_EQ(quantized.activations.size(), 6u);
  EXPECT_FALSE(quantized.activations.contains("self_attn.k_proj"));
  EXPECT_EQ(quantized.activations.at("mlp.down_proj"),
            (ActivationQuantizer{.grid = {.bits = 8, .group_size = 32}}));
  EXPECT_EQ(quantized.activations.at("self_attn.o_proj").clip, 0.75f);
}

TEST_F(ActivationQuantBlock, AClipBeyondItsRangeIsUsedAndStoredAtTheBorder) {
  DecoderBlock block = prepared();
  apply_activation_quantization(block, w4a4_);
  const auto first =
      std::dynamic_pointer_cast<ActivationQuantProjection>(block->projections().front().second);
  ASSERT_NE(first, nullptr);
  const torch::NoGradGuard no_grad;
  first->clip().fill_(1.5);
  EXPECT_EQ(convert_block(block).activations.at("self_attn.q_proj").clip, 1.0f);
  first->clip().fill_(-1);
  EXPECT_EQ(convert_block(block).activations.at("self_attn.q_proj").clip, kMinClip);
}

TEST_F(ActivationQuantBlock, QuantizingAnInputTwiceIsAProgrammingError) {
  DecoderBlock block = prepared();
  apply_activation_quantization(block, w4a4_);
  EXPECT_THROW(apply_activation_quantization(block, w4a4_), c10::Error);
}

TEST_F(ActivationQuantBlock, GroupsThatDoNotDivideTheInputsAreAProgrammingError) {
  EXPECT_THROW(quantize_activations(torch::zeros({2, 40}), clip_of(1), {.group_size = 32}),
               c10::Error);
}

}  // namespace
}  // namespace qaas
