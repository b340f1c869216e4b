#include "workers/engine/exporters/gptq.h"

#include <cmath>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/exporters/tiny_source.h"
#include "tests/support/status_matchers.h"
#include "workers/engine/quant/bit_packing.h"

namespace qaas {
namespace {

using qaas::testing::random_weight;
using qaas::testing::StatusIs;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

const Projection2d kProjection = {"model.layers.0.mlp.up_proj", 64, 128};

/// The tensors as views, as a reader has them. `tensors` must outlive it.
std::map<std::string, TensorView> views(const GptqTensors& tensors, const QuantizedWeight& weight) {
  const GptqGrid grid = {weight.bits, weight.group_size, weight.symmetric};
  const std::span<const std::byte> bytes[] = {
      std::as_bytes(std::span(tensors.qweight)), std::as_bytes(std::span(tensors.qzeros)),
      std::as_bytes(std::span(tensors.scales)), std::as_bytes(std::span(tensors.g_idx))};
  std::map<std::string, TensorView> all;
  size_t i = 0;
  for (const GptqTensorSpec& spec : gptq_tensor_specs(weight.rows, weight.cols, grid)) {
    all[kProjection.name + "." + spec.suffix] = {spec.dtype, spec.shape, bytes[i++]};
  }
  return all;
}

TEST(Gptq, RoundTripsEveryWidthGroupSizeAndSymmetry) {
  std::mt19937 random(1);
  for (int bits : {2, 3, 4, 8}) {
    for (int64_t group_size : {32, 64, 128}) {
      for (bool symmetric : {false, true}) {
        const GptqGrid grid = {bits, group_size, symmetric};
        const QuantizedWeight weight = random_weight(kProjection, grid, random);
        QAAS_ASSERT_OK_AND_ASSIGN(const GptqTensors tensors, pack_gptq(kProjection.name, weight));
        QAAS_ASSERT_OK_AND_ASSIGN(
            const QuantizedWeight back,
            unpack_gptq(kProjection.name, weight.rows, weight.cols, grid, views(tensors, weight)));
        EXPECT_EQ(back.packed, weight.packed);
        EXPECT_EQ(back.zero_points, weight.zero_points);
        EXPECT_EQ(back.scales, weight.scales);
        EXPECT_EQ(back.symmetric, symmetric);
        EXPECT_EQ(back.group_size, group_size);
      }
    }
  }
}

TEST(Gptq, CodesRunAlongTheInputsAndZeroPointsAlongTheOutputs) {
  QuantizedWeight weight = {.rows = 32, .cols = 32, .bits = 3, .group_size = 32};
  std::vector<uint8_t> codes(32 * 32, 0);
  for (int k = 0; k < 32; ++k) codes[5 * 32 + k] = static_cast<uint8_t>(k % 8);  // output 5
  weight.packed = pack_rows(codes, 32, 32, 3);
  for (int n = 0; n < 32; ++n) weight.zero_points.push_back(static_cast<uint8_t>(n % 8));
  for (int n = 0; n < 32; ++n) weight.scales.push_back(static_cast<float>(n + 1));
  QAAS_ASSERT_OK_AND_ASSIGN(const GptqTensors tensors, pack_gptq("p", weight));
  // Three words per column, [3, 32] row-major: the golden words of the layout stand in column 5.
  EXPECT_EQ(tensors.qweight[0 * 32 + 5], 0x88FAC688u);
  EXPECT_EQ(tensors.qweight[1 * 32 + 5], 0xC688FAC6u);
  EXPECT_EQ(tensors.qweight[2 * 32 + 5], 0xFAC688FAu);
  EXPECT_EQ(tensors.qweight[0 * 32 + 4], 0u);
  EXPECT_THAT(tensors.qzeros, ::testing::ElementsAre(0x88FAC688u, 0xC688FAC6u, 0xFAC688FAu));
  EXPECT_EQ(tensors.scales[2], 0x4200);  // 3.0
  EXPECT_THAT(tensors.g_idx, Each(0));
}

TEST(Gptq, SymmetricZeroPointsAreTheConstantsOfVersionTwo) {
  std::mt19937 random(2);
  const auto zeros = [&random](int bits) {
    const QuantizedWeight weight = random_weight(kProjection, {bits, 64, true}, random);
    return pack_gptq(kProjection.name, weight).value().qzeros;
  };
  EXPECT_THAT(zeros(2), Each(0xAAAAAAAAu));
  EXPECT_THAT(zeros(4), Each(0x88888888u));
  EXPECT_THAT(zeros(8), Each(0x80808080u));
  EXPECT_EQ(zeros(3)[0], 0x24924924u);
}

class GptqRefuses : public ::testing::Test {
 protected:
  GptqRefuses() : weight_(random_weight(kProjection, {4, 64, false}, random_)) {}
  void expect_refusal(const char* why) {
    EXPECT_THAT(pack_gptq(kProjection.name, weight_),
                StatusIs(kInvalid, AllOf(HasSubstr(kProjection.name), HasSubstr(why))));
  }
  std::mt19937 random_{4};
  QuantizedWeight weight_;
};

TEST_F(GptqRefuses, OutputsThatAreNoMultipleOf32) {
  weight_ = random_weight({"p", 48, 128}, {4, 64, false}, random_);
  expect_refusal("48 outputs, expected a multiple of 32");
}

TEST_F(GptqRefuses, InputsThatAreNoMultipleOf32) {
  weight_ = random_weight({"p", 64, 144}, {4, 48, false}, random_);
  expect_refusal("144 inputs, expected a multiple of 32");
}

TEST_F(GptqRefuses, AnUnknownWidth) {
  weight_.bits = 5;
  expect_refusal("5 bits, accepted: 2, 3, 4, 8");
}

TEST_F(GptqRefuses, AGroupSizeThatDoesNotDivideTheInputs) {
  weight_.group_size = 48;
  expect_refusal("group size 48 does not divide 128 inputs");
}

TEST_F(GptqRefuses, ArraysOfTheWrongSize) {
  weight_.scales.pop_back();
  expect_refusal("127 scales");
}

TEST_F(GptqRefuses, AZeroPointBeyondTheLargestCode) {
  weight_.zero_points[3] = 16;
  expect_refusal("output 1, group 1: zero point 16, the largest code is 15");
}

TEST_F(GptqRefuses, ASymmetricGridWithAZeroPointOffTheMidPoint) {
  weight_.symmetric = true;
  weight_.zero_points.assign(weight_.zero_points.size(), 8);
  weight_.zero_points[2] = 7;
  expect_refusal("output 1, group 0: zero point 7, a symmetric grid has 8");
}

TEST_F(GptqRefuses, ScalesThatFp16CannotHold) {
  for (const float scale : {0.1f, 70000.0f, 1e-5f, 0.0f, -0.5f,
                            std::numeric_limits<float>::infinity(), std::nanf("")}) {
    weight_.scales[0] = scale;
    expect_refusal("is not a positive normal fp16 number");
  }
}

TEST_F(GptqRefuses, ActOrderInFiles) {
  QAAS_ASSERT_OK_AND_ASSIGN(GptqTensors tensors, pack_gptq(kProjection.name, weight_));
  std::swap(tensors.g_idx[0], tensors.g_idx[127]);
  EXPECT_THAT(
      unpack_gptq(kProjection.name, 64, 128, {4, 64, false}, views(tensors, weight_)),
      StatusIs(kInvalid, AllOf(HasSubstr("up_proj.g_idx"), HasSubstr("input 0 is in group 1"))));
}

TEST_F(GptqRefuses, ASymmetricFlagOverAsymmetricFiles) {
  QAAS_ASSERT_OK_AND_ASSIGN(const GptqTensors tensors, pack_gptq(kProjection.name, weight_));
  EXPECT_THAT(unpack_gptq(kProjection.name, 64, 128, {4, 64, true}, views(tensors, weight_)),
              StatusIs(kInvalid, HasSubstr("a symmetric grid has 8")));
}

}  // namespace
}  // namespace qaas
