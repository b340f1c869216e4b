#include "workers/engine/eval/signal_report.h"

#include <cmath>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_llama.h"
#include "workers/engine/eval/moments.h"
#include "workers/engine/quant/quantized_block.h"

namespace qaas {
namespace {

using testing::IsOk;
using testing::StatusIs;

constexpr int64_t kWindows = 3, kSeq = 20, kBlocks = 2;

class SignalReport : public ::testing::Test {
 protected:
  SignalReport()
      : model_(testing::write_tiny_llama(folder_ / "model", {.dtype = Dtype::kF16})),
        ends_(load_ends(model_.config(), tensors())),
        rope_(make_rope_table(model_.config(), kSeq)) {
    at::set_num_threads(1);
    torch::manual_seed(4);
    ids_ = torch::randint(96, {kWindows, kSeq}, torch::kInt64);
  }
  TensorSource tensors() const {
    return [this](const std::string& name) -> const TensorView& { return model_.tensor(name); };
  }
  BlockSource original() const {
    return [this](int64_t index) { return load_block(model_.config(), tensors(), index); };
  }
  /// Everything at `bits`, but for the projection called `kept`.
  BlockSource prepared(int bits, const std::string& kept = "") const {
    return [this, bits, kept](int64_t index) -> absl::StatusOr<DecoderBlock> {
      DecoderBlock block = load_block(model_.config(), tensors(), index).value();
      prepare_block(block, [&](const std::string& name, int64_t) -> std::optional<AffineGrid> {
        if (name == kept) return std::nullopt;
        return AffineGrid{.bits = bits, .group_size = 32};
      });
      return block;
    };
  }
  SignalInputs inputs() const {
    return {
        .ends = ends_, .block_count = kBlocks, .original = original(), .ids = ids_, .rope = rope_};
  }
  v1::SignalReport report(const BlockSource& quantized, SensitivityMethod method) const {
    return signal_report(inputs(), quantized, {.sensitivity = {.method = method}}).value();
  }
  /// Of the next token at every position but the last, [tokens, vocab] float64.
  torch::Tensor log_probabilities(const std::vector<DecoderBlock>& blocks) const {
    const torch::NoGradGuard no_grad;
    torch::Tensor stream = embed(ends_, ids_);
    for (DecoderBlock block : blocks) stream = block->forward(stream, rope_, torch::kFloat32);
    const torch::Tensor hidden = final_hidden(ends_, stream.reshape({-1, stream.size(2)}));
    return torch::mm(hidden, ends_.head.to(torch::kFloat32).t())
        .view({kWindows, kSeq, -1})
        .narrow(1, 0, kSeq - 1)
        .flatten(0, 1)
        .to(torch::kFloat64)
        .log_softmax(1);
  }

  testing::TemporaryFolder folder_;
  ModelFolder model_;
  ModelEnds ends_;
  RopeTable rope_;
  torch::Tensor ids_;
};

TEST_F(SignalReport, GradientNormsAreThoseOfTheWholeModelsBackwardPass) {
  const BlockSource quantized = prepared(3);
  const v1::SignalReport found = report(quantized, SensitivityMethod::kMeasured);
  ASSERT_EQ(found.projections_size(), 7 * kBlocks);
  EXPECT_EQ(found.windows(), kWindows);
  for (const bool of_quantized : {false, true}) {
    // One graph through all blocks, the loss in plain ATen.
    std::map<std::string, torch::Tensor> weights;
    torch::Tensor stream = embed(ends_, ids_);
    for (int64_t i = 0; i < kBlocks; ++i) {
      DecoderBlock block = (of_quantized ? quantized : original())(i).value();
      for (const auto& [name, weight] : make_weights_differentiable(block)) {
        weights[block_prefix(i) + name] = weight;
      }
      stream = block->forward(stream, rope_, torch::kFloat32);
    }
    const torch::Tensor hidden = stream * torch::rsqrt(stream.square().mean(-1, true) + 1e-5);
    const torch::Tensor logits =
        torch::matmul(hidden * ends_.final_norm, ends_.head.to(torch::kFloat32).t());
    torch::nn::functional::cross_entropy(logits.narrow(1, 0, kSeq - 1).reshape({-1, 96}),
                                         ids_.narrow(1, 1, kSeq - 1).reshape({-1}))
        .backward();
    for (const v1::ProjectionSignal& signal : found.projections()) {
      const double norm = weights.at(signal.projection()).grad().norm().item<double>();
      EXPECT_NEAR(of_quantized ? signal.gradient_norm_quantized() : signal.gradient_norm_original(),
                  norm, 2e-3 * norm)
          << signal.projection();
    }
  }
}

TEST_F(SignalReport, MeasuredSensitivityIsTheDivergenceWithOneProjectionQuantized) {
  const v1::SignalReport found = report(prepared(2), SensitivityMethod::kMeasured);
  std::vector<DecoderBlock> blocks;
  for (int64_t i = 0; i < kBlocks; ++i) blocks.push_back(original()(i).value());
  const torch::Tensor p = log_probabilities(blocks);
  DecoderBlock changed = prepared(2)(0).value();
  const auto replacement = changed->projections()[4];
  blocks[0]->rewrite_projections([&](const std::string& name, const auto& current) {
    return name == replacement.first ? replacement.second : current;
  });
  const v1::ProjectionSignal& signal = found.projections(4);
  EXPECT_EQ(signal.projection(), "model.layers.0." + replacement.first);
  const double divergence =
      (p.exp() * (p - log_probabilities(blocks))).sum(1).mean().item<double>();
  EXPECT_GT(divergence, 0);
  EXPECT_NEAR(signal.loss_sensitivity(), divergence, 1e-6 + 1e-4 * divergence);
  EXPECT_FALSE(found.sensitivity_estimated());
}

TEST_F(SignalReport, SensitivitiesAreNeverNegativeAndFallWithBits) {
  for (const auto method : {SensitivityMethod::kMeasured, SensitivityMethod::kEstimated}) {
    const v1::SignalReport two = report(prepared(2), method), four = report(prepared(4), method);
    EXPECT_EQ(two.sensitivity_estimated(), method == SensitivityMethod::kEstimated);
    for (int p = 0; p < two.projections_size(); ++p) {
      EXPECT_GE(four.projections(p).loss_sensitivity(), 0);
      EXPECT_GT(two.projections(p).loss_sensitivity(), four.projections(p).loss_sensitivity())
          << two.projections(p).projection();
    }
  }
}

TEST_F(SignalReport, SqnrRisesBySixDecibelsABit) {
  const v1::SignalReport three = report(prepared(3), SensitivityMethod::kEstimated);
  const v1::SignalReport four = report(prepared(4), SensitivityMethod::kEstimated);
  for (int p = 0; p < three.projections_size(); ++p) {
    EXPECT_NEAR(four.projections(p).weight_sqnr_db() - three.projections(p).weight_sqnr_db(), 6.6,
                1.2);
    EXPECT_NEAR(four.projections(p).output_sqnr_db() - three.projections(p).output_sqnr_db(), 6.6,
                2.5);
    EXPECT_EQ(four.projections(p).bits(), 4);
  }
}

TEST_F(SignalReport, WhatKeepsFullPrecisionHasNoErrorAndNoSensitivity) {
  for (const auto method : {SensitivityMethod::kMeasured, SensitivityMethod::kEstimated}) {
    const v1::SignalReport found = report(prepared(2, "self_attn.o_proj"), method);
    const v1::ProjectionSignal& o = found.projections(3);
    EXPECT_EQ(o.projection(), "model.layers.0.self_attn.o_proj");
    EXPECT_EQ(o.bits(), 0);
    EXPECT_EQ(o.weight_sqnr_db(), kMostSqnr);
    EXPECT_EQ(o.output_sqnr_db(), kMostSqnr);
    EXPECT_EQ(o.loss_sensitivity(), 0);
  }
}

TEST_F(SignalReport, AnUnquantizedModelHasTheOriginalsSignals) {
  const v1::SignalReport found = report(original(), SensitivityMethod::kMeasured);
  for (const v1::ProjectionSignal& signal : found.projections()) {
    EXPECT_EQ(signal.gradient_norm_quantized(), signal.gradient_norm_original());
    EXPECT_EQ(signal.output_mean_quantized(), signal.output_mean_original());
    EXPECT_EQ(signal.output_variance_quantized(), signal.output_variance_original());
  }
}

TEST_F(SignalReport, TellsWhatIsFrozenAndTheGradientsAfterTraining) {
  const BlockSource quantized = prepared(3);
  QAAS_ASSERT_OK_AND_ASSIGN(
      v1::SignalReport found,
      signal_report(inputs(), quantized, {.frozen = [](const std::string& name) {
                      return name.find("v_proj") != std::string::npos;
                    }}));
  EXPECT_FALSE(found.projections(0).has_gradient_norm_trained());
  ASSERT_THAT(add_trained_gradients(inputs(), ends_, prepared(4), found), IsOk());
  const v1::SignalReport four = report(prepared(4), SensitivityMethod::kEstimated);
  for (int p = 0; p < found.projections_size(); ++p) {
    EXPECT_EQ(found.projections(p).frozen(), p % 7 == 2);
    EXPECT_EQ(found.projections(p).gradient_norm_trained(),
              four.projections(p).gradient_norm_quantized());
  }
}

TEST_F(SignalReport, StreamsInFilesGiveTheSameReport) {
  ActivationCache cache(folder_ / "streams", 0);
  SignalInputs in_files = inputs();
  in_files.cache = &cache;
  const SignalReportOptions options{.sensitivity = {.method = SensitivityMethod::kMeasured}};
  QAAS_ASSERT_OK_AND_ASSIGN(const auto found, signal_report(in_files, prepared(3), options));
  EXPECT_EQ(found.SerializeAsString(),
            report(prepared(3), SensitivityMethod::kMeasured).SerializeAsString());
}

TEST_F(SignalReport, MeasuresSmallModelsAndEstimatesOthers) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto small, chosen_method(inputs(), 4, {}));
  EXPECT_EQ(small, SensitivityMethod::kMeasured);
  QAAS_ASSERT_OK_AND_ASSIGN(const auto large, chosen_method(inputs(), 4, {.measured_budget = 1e6}));
  EXPECT_EQ(large, SensitivityMethod::kEstimated);
}

TEST_F(SignalReport, StopsWhenAsked) {
  std::stop_source stop;
  stop.request_stop();
  SignalInputs stopped = inputs();
  stopped.stop = stop.get_token();
  EXPECT_THAT(signal_report(stopped, prepared(3), {}),
              StatusIs(absl::StatusCode::kCancelled, ::testing::HasSubstr("stopped")));
}

TEST(Moments, EqualThoseOfTheValues) {
  torch::manual_seed(2);
  const torch::Tensor x = torch::randn({1000, 100}) * 2 + 3;
  Moments moments;
  moments.add(x.narrow(0, 0, 400));
  moments.add(x.narrow(0, 400, 600));
  const torch::Tensor centred = x.to(torch::kFloat64) - x.mean(torch::kFloat64);
  const double variance = centred.square().mean().item<double>();
  EXPECT_NEAR(moments.mean(), 3, 0.05);
  EXPECT_NEAR(moments.variance(), variance, 1e-9);
  EXPECT_NEAR(moments.kurtosis(), centred.pow(4).mean().item<double>() / (variance * variance),
              1e-8);
  EXPECT_NEAR(moments.kurtosis(), 3, 0.1);
}

}  // namespace
}  // namespace qaas
