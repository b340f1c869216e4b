#include "clients/cli/spec_flags.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace qaas::cli {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::qaas::testing::StatusIs;
using ::testing::HasSubstr;

class SpecFlagsTest : public ::testing::Test {
 protected:
  SpecFlagsTest() : file_(::testing::TempDir() + "/spec_flags_test.json") {}
  ~SpecFlagsTest() override { std::filesystem::remove(file_); }

  absl::StatusOr<v1::JobSpec> parse(std::vector<std::string> arguments) {
    CLI::App app;
    SpecFlags flags;
    add_spec_flags(app, flags);
    std::reverse(arguments.begin(), arguments.end());  // as CLI11's vector overload wants them
    app.parse(arguments);
    return build_spec(flags);
  }

  const std::string& write(const std::string& text) {
    std::ofstream(file_, std::ios::binary) << text;
    return file_;
  }

  static v1::JobSpec spec_of(const std::string& text) {
    v1::JobSpec spec;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &spec));
    return spec;
  }

  static void expect_spec(const absl::StatusOr<v1::JobSpec>& spec, const std::string& text) {
    QAAS_ASSERT_OK_AND_ASSIGN(const v1::JobSpec found, spec);
    EXPECT_TRUE(MessageDifferencer::Equals(found, spec_of(text))) << found.DebugString();
  }

 private:
  std::string file_;
};

TEST_F(SpecFlagsTest, WithoutFlagsTheSpecIsEmpty) { expect_spec(parse({}), ""); }

TEST_F(SpecFlagsTest, FlagsOfQuantizationSetTheirFields) {
  expect_spec(parse({"--method",
                     "gptq",
                     "--initializer",
                     "gptq",
                     "--rotate",
                     "--activations",
                     "8",
                     "--average-bits",
                     "3.5",
                     "--signal-report",
                     "--task",
                     "arc",
                     "--task",
                     "datasets/piqa",
                     "--further-evaluation",
                     "web",
                     "--eval-samples",
                     "16",
                     "--sequence-length",
                     "128"}),
              R"pb(
                method: METHOD_GPTQ
                initialisation { initializer: INITIALIZER_GPTQ rotate: true }
                activations { bits: 8 }
                automatic { average_bits: 3.5 }
                signal_report: true
                tasks: [ "datasets/arc", "datasets/piqa" ]
                calibration { sequence_length: 128 }
                evaluation { samples: 16 sequence_length: 128 }
                further_evaluations { dataset: "datasets/web" samples: 16 sequence_length: 128 }
              )pb");
}

TEST_F(SpecFlagsTest, ObjectiveAndFreezingAreThoseOfTheMethodsStage) {
  expect_spec(
      parse({"--method", "distillation", "--objective", "jsd", "--freeze", "*.0.*", "--ov-freeze"}),
      R"pb(
        method: METHOD_DISTILLATION_QAT
        distillation {
          objective { kind: OBJECTIVE_KIND_JSD }
          freeze: [ "*.0.*", "*.o_proj", "*.v_proj" ]
        }
      )pb");
  expect_spec(parse({"--method", "efficient-qat", "--preset", "accuracy", "--objective",
                     "forward-kl", "--ov-freeze"}),
              R"pb(
                method: METHOD_EFFICIENT_QAT
                preset: PRESET_ACCURACY
                e2e_qp {
                  objective { kind: OBJECTIVE_KIND_FORWARD_KL }
                  freeze: [ "*.o_proj", "*.v_proj" ]
                }
              )pb");
}

TEST_F(SpecFlagsTest, EveryFlagSetsItsField) {
  expect_spec(parse({"--model",
                     "small",
                     "--method",
                     "efficient-qat",
                     "--bits",
                     "2",
                     "--group-size",
                     "32",
                     "--symmetric",
                     "--keep",
                     "*.down_proj",
                     "--keep",
                     "*.0.*",
                     "--target",
                     "vllm",
                     "--target",
                     "gptqmodel",
                     "--calibration",
                     "text",
                     "--evaluation",
                     "datasets/held-out",
                     "--samples",
                     "64",
                     "--eval-samples",
                     "16",
                     "--sequence-length",
                     "256",
                     "--seed",
                     "0",
                     "--pretraining-tokens",
                     "1000",
                     "--block-ap-epochs",
                     "1",
                     "--e2e-qp-epochs",
                     "0"}),
              R"pb(
                model: "models/small"
                method: METHOD_EFFICIENT_QAT
                weights { bits: 2 group_size: 32 symmetric: true }
                overrides { pattern: "*.down_proj" keep_full_precision: true }
                overrides { pattern: "*.0.*" keep_full_precision: true }
                target_runtimes: [ TARGET_RUNTIME_VLLM, TARGET_RUNTIME_GPTQMODEL ]
                calibration { dataset: "datasets/text" samples: 64 sequence_length: 256 }
                evaluation { dataset: "datasets/held-out" samples: 16 sequence_length: 256 }
                seed: 0
                pretraining_tokens: 1000
                block_ap { epochs: 1 }
                e2e_qp { epochs: 0 }
              )pb");
}

TEST_F(SpecFlagsTest, RoundToNearestGetsNoCalibrationByWayOfTheLength) {
  expect_spec(parse({"--method", "round-to-nearest", "--sequence-length", "64", "--asymmetric"}),
              "method: METHOD_ROUND_TO_NEAREST weights { symmetric: false } "
              "evaluation { sequence_length: 64 }");
}

TEST_F(SpecFlagsTest, WholeRowsAreMinusOne) {
  expect_spec(parse({"--group-size", "row"}), "weights { group_size: -1 }");
  expect_spec(parse({"--group-size", "-1"}), "weights { group_size: -1 }");
  EXPECT_THROW((void)parse({"--group-size", "many"}), CLI::ValidationError);
}

TEST_F(SpecFlagsTest, ContradictingOrUnknownWordsAreUsageErrors) {
  EXPECT_THROW((void)parse({"--symmetric", "--asymmetric"}), CLI::ExcludesError);
  EXPECT_THROW((void)parse({"--method", "magic"}), CLI::ValidationError);
  EXPECT_THROW((void)parse({"--target", "tensorrt"}), CLI::ValidationError);
  EXPECT_THROW((void)parse({"--bits", "two"}), CLI::ConversionError);
}

TEST_F(SpecFlagsTest, FlagsOverrideTheFile) {
  const std::string& file = write(R"({"model": "models/a", "weights": {"bits": 4, "groupSize": 64},
                                      "target_runtimes": ["TARGET_RUNTIME_VLLM"],
                                      "e2e_qp": {"schedule": "LEARNING_RATE_SCHEDULE_CONSTANT"}})");
  expect_spec(parse({"--spec", file, "--bits", "2", "--target", "gptqmodel"}),
              R"pb(
                model: "models/a"
                weights { bits: 2 group_size: 64 }
                target_runtimes: TARGET_RUNTIME_GPTQMODEL
                e2e_qp { schedule: LEARNING_RATE_SCHEDULE_CONSTANT }
              )pb");
}

TEST_F(SpecFlagsTest, NamesTheFieldThatAFileMisspells) {
  EXPECT_THAT(parse({"--spec", write(R"({"modle": "models/a"})")}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("modle")));
  EXPECT_THAT(parse({"--spec", write("{")}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is no JobSpec")));
}

TEST_F(SpecFlagsTest, RefusesFilesThatAreMissingOrHuge) {
  EXPECT_THAT(parse({"--spec", "/nonexistent/spec.json"}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nonexistent/spec.json")));
  EXPECT_THAT(parse({"--spec", write(std::string((1 << 20) + 1, ' '))}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("larger than")));
}

}  // namespace
}  // namespace qaas::cli
