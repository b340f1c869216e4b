#include "workers/engine/exporters/float16.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

namespace qaas {
namespace {

TEST(Float16, EveryBitPatternSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = from_float16(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(from_float16(to_float16(value))));
    } else {
      ASSERT_EQ(to_float16(value), bits) << value;
    }
  }
}

TEST(Float16, ValuesBetweenTwoNeighboursGoToTheNearerAndTiesToTheEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = from_float16(static_cast<uint16_t>(bits));
    const float high = from_float16(static_cast<uint16_t>(bits + 1));
    const float middle = low + (high - low) / 2;  // exact: fp32 has 13 bits more
    ASSERT_EQ(to_float16(middle), bits % 2 == 0 ? bits : bits + 1) << middle;
    ASSERT_EQ(to_float16(std::nextafter(middle, 0.0f)), bits);
    ASSERT_EQ(to_float16(std::nextafter(middle, 1e9f)), bits + 1);
    ASSERT_EQ(to_float16(-std::nextafter(middle, 1e9f)), (bits + 1) | 0x8000u);
  }
}

TEST(Float16, KnownValues) {
  EXPECT_EQ(to_float16(1.0f), 0x3c00);
  EXPECT_EQ(to_float16(-2.0f), 0xc000);
  EXPECT_EQ(to_float16(65504.0f), 0x7bff);
  EXPECT_EQ(to_float16(65520.0f), 0x7c00);
  EXPECT_EQ(to_float16(std::numeric_limits<float>::infinity()), 0x7c00);
  EXPECT_EQ(from_float16(0x0001), 0x1p-24f);
}

TEST(Float16, OnlyPositiveNormalExactValuesAreScales) {
  EXPECT_TRUE(is_float16_scale(0x1p-14f));
  EXPECT_TRUE(is_float16_scale(65504.0f));
  EXPECT_TRUE(is_float16_scale(from_float16(0x2e66)));
  EXPECT_FALSE(is_float16_scale(0.1f));
  EXPECT_FALSE(is_float16_scale(0.0f));
  EXPECT_FALSE(is_float16_scale(-1.0f));
  EXPECT_FALSE(is_float16_scale(0x1p-15f));
  EXPECT_FALSE(is_float16_scale(65536.0f));
  EXPECT_FALSE(is_float16_scale(std::nanf("")));
}

TEST(EncodeFloats, RefusesWhatTheTypeCannotHold) {
  const std::vector<float> large = {1.0f, 1e5f};
  EXPECT_TRUE(encode_floats(large, Dtype::kF32).has_value());
  EXPECT_TRUE(encode_floats(large, Dtype::kBf16).has_value());
  EXPECT_FALSE(encode_floats(large, Dtype::kF16).has_value());
  EXPECT_FALSE(encode_floats(std::vector<float>{std::nanf("")}, Dtype::kF32).has_value());
  EXPECT_FALSE(encode_floats(std::vector<float>{3.4e38f}, Dtype::kBf16).has_value());
  EXPECT_FALSE(encode_floats(large, Dtype::kI32).has_value());
}

TEST(EncodeFloats, RoundsHalfToEven) {
  const auto bytes =
      encode_floats(std::vector<float>{1.0f + 0x1p-8f, 1.0f + 0x3p-8f}, Dtype::kBf16);
  ASSERT_TRUE(bytes.has_value());
  EXPECT_EQ(*bytes, (std::vector<std::byte>{std::byte{0x80}, std::byte{0x3f}, std::byte{0x82},
                                            std::byte{0x3f}}));
}

}  // namespace
}  // namespace qaas
