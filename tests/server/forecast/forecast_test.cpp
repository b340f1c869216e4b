#include "server/forecast/forecast.h"

#include <cmath>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/proto/spec/sample_job.h"

namespace qaas {
namespace {

using ::qaas::testing::llama;
using ::qaas::testing::minimal_spec;
using ::qaas::testing::round_to_nearest_spec;
using ::qaas::testing::small_model;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

/// A model inside chen2025's range, with N exactly as in the sheet's test vector.
v1::Model model_of_595m() {
  v1::Model model = llama(24, 1536, 4096, 32000, 384);
  model.set_non_embedding_parameter_count(595'000'000);
  return model;
}

v1::PredictionInput input(const v1::Prediction& prediction, const std::string& symbol) {
  for (const v1::PredictionInput& candidate : prediction.inputs()) {
    if (candidate.symbol() == symbol) return candidate;
  }
  ADD_FAILURE() << "no input " << symbol;
  return {};
}

TEST(Forecast, FourBitTrainingFollowsChen) {
  v1::JobSpec spec = minimal_spec(4);
  spec.set_pretraining_tokens(100'000'000'000);
  const v1::Prediction quantized = make_forecast(spec, model_of_595m()).quantized();
  EXPECT_NEAR(quantized.error(), 0.020996, 6e-7);
  EXPECT_EQ(quantized.source(), "chen2025 W4A16");
  EXPECT_EQ(quantized.relative_error(), 0.052);
  for (const char* symbol : {"N", "D", "G"}) {
    EXPECT_TRUE(input(quantized, symbol).in_range()) << symbol;
    EXPECT_FALSE(input(quantized, symbol).assumed()) << symbol;
  }
  EXPECT_TRUE(quantized.extrapolated());
  EXPECT_THAT(quantized.notes(), Contains(HasSubstr("fine-tunes a trained model")));
}

TEST(Forecast, SaysWhichInputsLieOutsideTheFit) {
  v1::JobSpec spec = minimal_spec(4);
  spec.set_pretraining_tokens(1'000'000'000'000);
  const v1::Prediction quantized = make_forecast(spec, small_model()).quantized();
  EXPECT_FALSE(input(quantized, "N").in_range());
  EXPECT_FALSE(input(quantized, "D").in_range());
  EXPECT_TRUE(input(quantized, "G").in_range());
  EXPECT_EQ(input(quantized, "N").fitted_min(), 74e6);
}

TEST(Forecast, MarksAssumedTokens) {
  const v1::Prediction quantized = make_forecast(minimal_spec(4), model_of_595m()).quantized();
  EXPECT_TRUE(input(quantized, "D").assumed());
  EXPECT_EQ(input(quantized, "D").value(), 20 * 595e6);
  EXPECT_THAT(quantized.notes(), Contains(HasSubstr("20 tokens per non-embedding parameter")));
}

// Parameter-weighted mean over 2 * 256*256 + 2 * 128*256 + 2 * 768*256 weights with 256 inputs and
// 256*768 with 768.
TEST(Forecast, WholeRowsUseTheirMeanLengthAndSaySo) {
  v1::JobSpec spec = minimal_spec(4);
  spec.mutable_weights()->set_group_size(-1);
  const v1::Prediction quantized = make_forecast(spec, small_model()).quantized();
  const double narrow = 2 * 256 * 256 + 2 * 128 * 256 + 2 * 768 * 256;
  const double wide = 256 * 768;
  const v1::PredictionInput group = input(quantized, "G");
  EXPECT_NEAR(group.value(), (narrow * 256 + wide * 768) / (narrow + wide), 1e-9);
  EXPECT_FALSE(group.in_range());
  EXPECT_TRUE(group.assumed());
  EXPECT_TRUE(quantized.extrapolated());
  EXPECT_THAT(quantized.notes(), Contains(HasSubstr("whole row")));
}

TEST(Forecast, OtherWidthsFollowKumarAndAreMarked) {
  for (const int bits : {2, 3, 8}) {
    const v1::Prediction quantized = make_forecast(minimal_spec(bits), small_model()).quantized();
    EXPECT_EQ(quantized.source(), "kumar2024 f_w");
    EXPECT_TRUE(quantized.has_error());
    EXPECT_GT(quantized.error(), 0);
    EXPECT_FALSE(quantized.has_relative_error());
    EXPECT_TRUE(quantized.extrapolated());
    EXPECT_EQ(input(quantized, "P").value(), bits);
    EXPECT_EQ(input(quantized, "P").in_range(), bits != 2);
    EXPECT_THAT(quantized.notes(), Contains(HasSubstr("outside the law's fit")));
  }
}

TEST(Forecast, RoundToNearestFollowsOuyangAndIsMarked) {
  v1::JobSpec spec = round_to_nearest_spec(4);
  spec.set_pretraining_tokens(300'000'000'000);
  v1::Model model = small_model();
  model.set_non_embedding_parameter_count(1'000'000'000);
  const v1::Forecast forecast = make_forecast(spec, model);
  EXPECT_NEAR(forecast.quantized().error(), 0.0818, 6e-5);
  EXPECT_EQ(forecast.quantized().source(), "ouyang2024");
  EXPECT_TRUE(forecast.quantized().extrapolated());
  EXPECT_THAT(forecast.quantized().notes(), Contains(HasSubstr("GPTQ")));
  EXPECT_EQ(forecast.quantized().SerializeAsString(),
            forecast.round_to_nearest().SerializeAsString());
}

TEST(Forecast, RoundToNearestAtEightBitsHasNoPredictionButAReason) {
  const v1::Forecast forecast = make_forecast(minimal_spec(8), small_model());
  EXPECT_FALSE(forecast.round_to_nearest().has_error());
  EXPECT_THAT(forecast.round_to_nearest().notes(),
              Contains("no prediction: the law covers 2 to 4 bits, found 8"));
  EXPECT_TRUE(forecast.quantized().has_error());
}

TEST(Forecast, MixedWidthsUseTheMeanAndSaySo) {
  v1::JobSpec spec = minimal_spec(4);
  spec.add_overrides()->set_pattern("*.down_proj");
  spec.mutable_overrides(0)->mutable_weights()->set_bits(2);
  spec.mutable_overrides(0)->mutable_weights()->set_group_size(128);
  const v1::Prediction quantized = make_forecast(spec, small_model()).quantized();
  EXPECT_EQ(quantized.source(), "kumar2024 f_w");
  EXPECT_GT(input(quantized, "P").value(), 2);
  EXPECT_LT(input(quantized, "P").value(), 4);
  EXPECT_THAT(quantized.notes(), Contains(HasSubstr("differ in width")));
}

TEST(Forecast, KeptProjectionsAreMentioned) {
  v1::JobSpec spec = minimal_spec(4);
  spec.add_overrides()->set_pattern("*.down_proj");
  spec.mutable_overrides(0)->set_keep_full_precision(true);
  EXPECT_THAT(make_forecast(spec, small_model()).quantized().notes(),
              Contains(HasSubstr("25.0 % of the projection weights keep full precision")));
}

TEST(Forecast, AModelWithoutParametersHasReasonsInsteadOfNumbers) {
  for (const int bits : {2, 3, 4, 8}) {
    v1::Model model = small_model();
    model.set_non_embedding_parameter_count(0);
    const v1::Forecast forecast = make_forecast(minimal_spec(bits), model);
    for (const v1::Prediction& prediction : {forecast.quantized(), forecast.round_to_nearest()}) {
      EXPECT_FALSE(prediction.has_error());
      EXPECT_THAT(prediction.notes(), Contains(HasSubstr("no prediction")));
    }
  }
}

TEST(Forecast, CarriesBytesAndRuntimes) {
  const v1::Forecast forecast = make_forecast(minimal_spec(4), small_model());
  EXPECT_EQ(forecast.original_bytes(), small_model().size_bytes());
  EXPECT_LT(forecast.artifact_bytes(), forecast.original_bytes());
  EXPECT_NEAR(forecast.bits_per_weight(), 4 + 20.0 / 128, 1e-12);
  EXPECT_GT(forecast.memory_bytes(), 0);
  EXPECT_GT(forecast.disk_bytes(), forecast.artifact_bytes());
  EXPECT_EQ(forecast.runtimes_size(), 3);
}

TEST(Forecast, GptqIsWhatOuyangFitted) {
  v1::JobSpec spec = minimal_spec(4);
  spec.set_method(v1::METHOD_GPTQ);
  spec.set_pretraining_tokens(100'000'000'000);
  v1::Model model = model_of_595m();
  const v1::Forecast forecast = make_forecast(spec, model);
  EXPECT_EQ(forecast.quantized().source(), "ouyang2024");
  EXPECT_FALSE(forecast.quantized().extrapolated());
  EXPECT_TRUE(forecast.round_to_nearest().extrapolated());
  EXPECT_EQ(forecast.quantized().error(), forecast.round_to_nearest().error());
}

TEST(Forecast, DistillationBorrowsALawAndSaysSo) {
  v1::JobSpec spec = minimal_spec(4);
  spec.set_method(v1::METHOD_DISTILLATION_QAT);
  const v1::Prediction quantized = make_forecast(spec, model_of_595m()).quantized();
  EXPECT_EQ(quantized.source(), "chen2025 W4A16");
  EXPECT_THAT(quantized.notes(), Contains(HasSubstr("no law of distillation")));
}

TEST(Forecast, FourBitActivationsFollowTheirOwnRow) {
  v1::JobSpec spec = minimal_spec(4);
  spec.set_pretraining_tokens(100'000'000'000);
  spec.mutable_activations()->set_bits(4);
  spec.mutable_activations()->set_group_size(128);
  // The sheet's test vectors at N 595e6, D 1e11, G 128.
  v1::Prediction quantized = make_forecast(spec, model_of_595m()).quantized();
  EXPECT_EQ(quantized.source(), "chen2025 W4A4");
  EXPECT_EQ(quantized.relative_error(), 0.047);
  EXPECT_NEAR(quantized.error(), 0.057279, 6e-7);
  spec.mutable_activations()->set_down_proj_bits(8);
  quantized = make_forecast(spec, model_of_595m()).quantized();
  EXPECT_EQ(quantized.source(), "chen2025 W4A4, FC2 input 8-bit");
  EXPECT_FALSE(quantized.has_relative_error());
  EXPECT_NEAR(quantized.error(), 0.038098, 6e-7);
}

TEST(Forecast, SaysWhatOfTheJobNoLawKnows) {
  v1::JobSpec spec = minimal_spec(2);
  spec.mutable_activations()->set_bits(8);
  spec.mutable_automatic()->set_average_bits(3);
  const v1::Prediction quantized = make_forecast(spec, model_of_595m()).quantized();
  EXPECT_THAT(quantized.notes(), Contains(HasSubstr("8-bit activations comes on top")));
  EXPECT_THAT(quantized.notes(), Contains(HasSubstr("chosen by measurement")));
}

}  // namespace
}  // namespace qaas
