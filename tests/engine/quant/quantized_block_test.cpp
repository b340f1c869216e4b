#include "workers/engine/quant/quantized_block.h"

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tensor_matchers.h"
#include "tests/support/tiny_llama.h"
#include "workers/engine/model/decoder.h"
#include "workers/engine/quant/fake_quant_projection.h"
#include "workers/engine/quant/packed_projection.h"

namespace qaas {
namespace {

using testing::same_bits;
using testing::TemporaryFolder;
using testing::TinyLlamaOptions;
using testing::write_tiny_llama;

class QuantizedBlockTest : public ::testing::Test {
 protected:
  QuantizedBlockTest()
      : model_(write_tiny_llama(folder_ / "model", {.dtype = Dtype::kF16})),
        tensor_(
            [this](const std::string& name) -> const TensorView& { return model_.tensor(name); }) {}

  DecoderBlock dense() const { return load_block(model_.config(), tensor_, 1).value(); }

  TemporaryFolder folder_;
  ModelFolder model_;
  TensorSource tensor_;
  const GridOf mixed_ = [](const std::string& name, int64_t) -> std::optional<AffineGrid> {
    if (name == "self_attn.v_proj") return std::nullopt;
    if (name == "mlp.down_proj") return AffineGrid{.bits = 8, .group_size = 128, .symmetric = true};
    return AffineGrid{.bits = 2, .group_size = 32};
  };
};

TEST_F(QuantizedBlockTest, PackedBlockGivesTheOutputOfThePreparedOne) {
  DecoderBlock prepared = dense();
  prepare_block(prepared, mixed_);
  DecoderBlock packed = make_packed_block(model_.config(), tensor_, 1, convert_block(prepared));
  const torch::NoGradGuard no_grad;
  torch::manual_seed(1);
  const torch::Tensor x = torch::randn({2, 12, 64});
  const RopeTable rope = make_rope_table(model_.config(), 12);
  for (const auto compute : {torch::kFloat32, torch::kBFloat16}) {
    EXPECT_TRUE(same_bits(packed->forward(x, rope, compute), prepared->forward(x, rope, compute)))
        << compute;
  }
}

TEST_F(QuantizedBlockTest, EachProjectionGetsItsOwnGridAndKeepsItsName) {
  DecoderBlock block = dense();
  prepare_block(block, mixed_);
  const QuantizedBlock quantized = convert_block(block);
  EXPECT_EQ(quantized.projections.size(), 6u);
  EXPECT_FALSE(quantized.projections.contains("self_attn.v_proj"));
  EXPECT_EQ(quantized.projections.at("mlp.down_proj").bits, 8);
  EXPECT_EQ(quantized.projections.at("mlp.down_proj").group_size, 128);
  EXPECT_EQ(quantized.projections.at("mlp.up_proj").bits, 2);
  EXPECT_EQ(quantized.norms.size(), 2u);

  DecoderBlock packed = make_packed_block(model_.config(), tensor_, 1, quantized);
  for (const auto& [name, projection] : packed->projections()) {
    const bool dense = std::dynamic_pointer_cast<DenseProjection>(projection) != nullptr;
    EXPECT_EQ(dense, name == "self_attn.v_proj") << name;
  }
  const auto parameters = packed->named_parameters();
  EXPECT_TRUE(parameters.contains("self_attn.v_proj.weight"));
  EXPECT_TRUE(parameters.contains("mlp.down_proj.scale"));
}

TEST_F(QuantizedBlockTest, FullPrecisionProjectionsAreTheCheckpointsOwn) {
  DecoderBlock block = dense();
  prepare_block(block, mixed_);
  const DecoderBlock packed = make_packed_block(model_.config(), tensor_, 1, convert_block(block));
  const auto projection = packed->projections()[2];
  ASSERT_EQ(projection.first, "self_attn.v_proj");
  EXPECT_TRUE(same_bits(projection.second->effective_weight(),
                        to_float_tensor(model_.tensor("model.layers.1.self_attn.v_proj.weight"))));
}

TEST_F(QuantizedBlockTest, NormsAreConvertedToWhatTheFileHolds) {
  DecoderBlock block = dense();
  prepare_block(block, mixed_);
  {
    const torch::NoGradGuard no_grad;
    for (auto& [name, norm] : block->norms()) norm.add_(1e-5);
  }
  for (const auto& [name, norm] : convert_block(block).norms) {
    EXPECT_TRUE(same_bits(norm.to(torch::kFloat16).to(torch::kFloat32), norm)) << name;
  }
}

TEST_F(QuantizedBlockTest, RepackingWithoutTrainingChangesNothing) {
  DecoderBlock block = dense();
  prepare_block(block, mixed_);
  const QuantizedBlock before = convert_block(block);
  const QuantizedBlock after =
      convert_block(make_packed_block(model_.config(), tensor_, 1, before));
  ASSERT_EQ(after.projections.size(), before.projections.size());
  for (const auto& [name, weight] : before.projections) {
    EXPECT_EQ(after.projections.at(name).packed, weight.packed) << name;
    EXPECT_EQ(after.projections.at(name).scales, weight.scales) << name;
    EXPECT_EQ(after.projections.at(name).zero_points, weight.zero_points) << name;
  }
  for (const auto& [name, norm] : before.norms) {
    EXPECT_TRUE(same_bits(after.norms.at(name), norm)) << name;
  }
}

TEST_F(QuantizedBlockTest, PreparingTwiceIsAProgrammingError) {
  DecoderBlock block = dense();
  prepare_block(block, mixed_);
  EXPECT_THROW(prepare_block(block, mixed_), c10::Error);
}

}  // namespace
}  // namespace qaas
