#include "workers/engine/train/initialise_block.h"

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tensor_matchers.h"
#include "tests/support/tiny_llama.h"
#include "workers/engine/quant/clip_search.h"
#include "workers/engine/quant/fake_quant_projection.h"
#include "workers/engine/train/block_ap.h"

namespace qaas {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::same_bits;
using testing::StatusIs;
using testing::TemporaryFolder;
using testing::write_tiny_llama;

constexpr int64_t kWindows = 6, kSeq = 16;

/// Keeps every input it sees.
class RecordingProjection : public Projection {
 public:
  explicit RecordingProjection(std::shared_ptr<Projection> inner) : inner_(std::move(inner)) {}
  torch::Tensor forward(const torch::Tensor& x) override {
    seen.push_back(x.clone());
    return inner_->forward(x);
  }
  int64_t output_size() const override { return inner_->output_size(); }
  torch::Tensor effective_weight() override { return inner_->effective_weight(); }

  std::vector<torch::Tensor> seen;  // [tokens, in] each

 private:
  std::shared_ptr<Projection> inner_;
};

class InitialiseBlockTest : public ::testing::Test {
 protected:
  InitialiseBlockTest()
      : model_(write_tiny_llama(folder_.path())), rope_(make_rope_table(model_.config(), kSeq)) {
    torch::manual_seed(1);
    const int64_t dim = model_.config().hidden_size;
    inputs_ = torch::randn({kWindows, kSeq, 10}).matmul(torch::randn({10, dim})) +
              0.3 * torch::randn({kWindows, kSeq, dim});
  }

  DecoderBlock dense() const {
    return load_block(
               model_.config(),
               [this](const std::string& name) -> const TensorView& { return model_.tensor(name); },
               0)
        .value();
  }
  static InitialiseOptions all(Initializer initializer) {
    InitialiseOptions options;
    options.initializer = [initializer](const std::string&) { return initializer; };
    return options;
  }
  DecoderBlock initialised(const InitialiseOptions& options, const GridOf& grid_of) const {
    DecoderBlock block = dense();
    EXPECT_THAT(initialise_block(block, grid_of, options, inputs_, rope_, {}), IsOk());
    return block;
  }
  double error(DecoderBlock& block) const {
    DecoderBlock original = dense();
    return torch::mse_loss(run_block(block, inputs_, rope_, torch::kFloat32),
                           run_block(original, inputs_, rope_, torch::kFloat32))
        .item<double>();
  }
  static std::shared_ptr<FakeQuantProjection> fake(const DecoderBlock& block,
                                                   const std::string& name) {
    for (const auto& [found, projection] : block->projections()) {
      if (found == name) return std::dynamic_pointer_cast<FakeQuantProjection>(projection);
    }
    return nullptr;
  }

  TemporaryFolder folder_;
  ModelFolder model_;
  RopeTable rope_;
  torch::Tensor inputs_;  // [windows, seq, dim]
  const AffineGrid grid_{.bits = 2, .group_size = 32};
  const GridOf everywhere_ = [this](const std::string&, int64_t) { return grid_; };
};

TEST_F(InitialiseBlockTest, MinMaxIsThePreparedBlockAndNeedsNoInputs) {
  DecoderBlock block = dense(), prepared = dense();
  ASSERT_THAT(initialise_block(block, everywhere_, {}, {}, {}, {}), IsOk());
  prepare_block(prepared, everywhere_);
  const auto expected = prepared->named_parameters();
  ASSERT_EQ(block->named_parameters().size(), expected.size());
  for (const auto& item : block->named_parameters()) {
    EXPECT_TRUE(same_bits(item.value(), expected[item.key()])) << item.key();
  }
}

TEST_F(InitialiseBlockTest, UniformClipSearchNeedsNoInputs) {
  DecoderBlock block = dense();
  InitialiseOptions options = all(Initializer::kClipSearch);
  options.clip_importance = ClipImportance::kUniform;
  ASSERT_THAT(initialise_block(block, everywhere_, options, {}, {}, {}), IsOk());
  for (const auto& [name, projection] : dense()->projections()) {
    const torch::Tensor weight = projection->effective_weight();
    const Qparams expected = clip_search_qparams(weight, grid_, {});
    const auto parameters = fake(block, name)->quant_parameters();
    EXPECT_TRUE(same_bits(fake(block, name)->weight_parameters()[0], weight)) << name;
    EXPECT_TRUE(same_bits(parameters[0], expected.scale)) << name;
    EXPECT_TRUE(same_bits(parameters[1], expected.zero_point)) << name;
  }
}

TEST_F(InitialiseBlockTest, EachStepUpLowersTheBlocksError) {
  DecoderBlock min_max = initialised(all(Initializer::kMinMax), everywhere_);
  DecoderBlock clipped = initialised(all(Initializer::kClipSearch), everywhere_);
  DecoderBlock gptq = initialised(all(Initializer::kGptq), everywhere_);
  EXPECT_LT(error(clipped), 0.9 * error(min_max));
  EXPECT_LT(error(gptq), 0.9 * error(clipped));
}

/// Expected weight and qparams of one projection from the inputs it really gets in `block`, whose
/// earlier projections are quantized already.
TEST_F(InitialiseBlockTest, EachProjectionIsFittedToInputsFromTheQuantizedOnesBeforeIt) {
  const DecoderBlock whole = initialised(all(Initializer::kGptq), everywhere_);
  const std::vector<std::string> names = {
      "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
      "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
  for (const size_t at : {size_t{2}, size_t{3}, size_t{5}, size_t{6}}) {
    DecoderBlock block = dense();
    torch::Tensor weight;  // [out, in]
    std::shared_ptr<RecordingProjection> recording;
    block->rewrite_projections(
        [&](const std::string& name,
            const std::shared_ptr<Projection>& old) -> std::shared_ptr<Projection> {
          if (name == names[at]) {
            weight = old->effective_weight();
            return recording = std::make_shared<RecordingProjection>(old);
          }
          const auto earlier = std::find(names.begin(), names.begin() + int64_t(at), name);
          return earlier == names.begin() + int64_t(at) ? old : fake(whole, name);
        });
    run_block(block, inputs_, rope_, torch::kFloat32);
    HessianAccumulator accumulator(weight.size(1));
    for (const torch::Tensor& x : recording->seen) accumulator.add(x);
    const torch::Tensor hessian = accumulator.hessian();
    const Qparams qparams = clip_search_qparams(weight, grid_, hessian.diagonal());
    const auto factor = factor_hessian(hessian, {});
    ASSERT_THAT(factor, IsOk());
    EXPECT_TRUE(same_bits(fake(whole, names[at])->weight_parameters()[0],
                          gptq_weights(weight, *factor, qparams, grid_, {})))
        << names[at];
    EXPECT_TRUE(same_bits(fake(whole, names[at])->quant_parameters()[0], qparams.scale))
        << names[at];
  }
}

TEST_F(InitialiseBlockTest, GridAndInitializerAreChosenForEachProjection) {
  InitialiseOptions options;
  options.initializer = [](const std::string& name) {
    EXPECT_NE(name, "self_attn.q_proj");
    if (name == "mlp.up_proj") return Initializer::kMinMax;
    return name == "mlp.gate_proj" ? Initializer::kClipSearch : Initializer::kGptq;
  };
  const GridOf mixed = [](const std::string& name, int64_t) -> std::optional<AffineGrid> {
    if (name == "self_attn.q_proj") return std::nullopt;
    if (name == "self_attn.v_proj") return AffineGrid{.bits = 4, .group_size = 64};
    return AffineGrid{.bits = 3, .group_size = 32, .symmetric = true};
  };
  const DecoderBlock block = initialised(options, mixed), original = dense();
  for (const auto& [name, projection] : original->projections()) {
    const auto quantized = fake(block, name);
    if (name == "self_attn.q_proj") {
      EXPECT_EQ(quantized, nullptr);
      continue;
    }
    EXPECT_EQ(quantized->grid().bits, name == "self_attn.v_proj" ? 4 : 3) << name;
    const bool compensated =
        !torch::equal(quantized->weight_parameters()[0], projection->effective_weight());
    EXPECT_EQ(compensated, name != "mlp.up_proj" && name != "mlp.gate_proj") << name;
  }
  const auto kept = block->projections()[0];
  ASSERT_EQ(kept.first, "self_attn.q_proj");
  EXPECT_TRUE(same_bits(kept.second->effective_weight(),
                        original->projections()[0].second->effective_weight()));
}

TEST_F(InitialiseBlockTest, SameInputsGiveTheSameBitsInEitherComputeType) {
  for (const auto compute : {torch::kFloat32, torch::kBFloat16}) {
    InitialiseOptions options = all(Initializer::kGptq);
    options.compute = compute;
    options.gptq.activation_order = true;
    const DecoderBlock once = initialised(options, everywhere_);
    const DecoderBlock again = initialised(options, everywhere_);
    for (const auto& item : once->named_parameters()) {
      EXPECT_TRUE(same_bits(again->named_parameters()[item.key()], item.value())) << item.key();
    }
  }
}

TEST_F(InitialiseBlockTest, InputsThatAreNotFiniteAreAnErrorThatNamesTheProjection) {
  inputs_[2][0][0] = std::numeric_limits<float>::infinity();
  for (const Initializer initializer : {Initializer::kClipSearch, Initializer::kGptq}) {
    DecoderBlock block = dense();
    EXPECT_THAT(initialise_block(block, everywhere_, all(initializer), inputs_, rope_, {}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("self_attn.q_proj")));
  }
}

TEST_F(InitialiseBlockTest, StopsWhenAsked) {
  std::stop_source stop;
  stop.request_stop();
  DecoderBlock block = dense();
  EXPECT_THAT(initialise_block(block, everywhere_, all(Initializer::kGptq), inputs_, rope_,
                               stop.get_token()),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("stopped")));
}

TEST_F(InitialiseBlockTest, InitialisingTwiceIsAProgrammingError) {
  DecoderBlock block = initialised({}, everywhere_);
  EXPECT_THROW(static_cast<void>(initialise_block(block, everywhere_, {}, {}, {}, {})), c10::Error);
}

}  // namespace
}  // namespace qaas
