#include "workers/engine/quant/bit_packing.h"

#include <cstdint>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qaas {
namespace {

std::vector<uint32_t> pack(const std::vector<uint8_t>& values, int bits) {
  return pack_rows(values, 1, static_cast<int64_t>(values.size()), bits);
}

TEST(BitPacking, GivesTheGoldenWordsOfGptq) {
  std::vector<uint8_t> twos(16), threes(32);
  for (size_t i = 0; i < twos.size(); ++i) twos[i] = static_cast<uint8_t>(i % 4);
  for (size_t i = 0; i < threes.size(); ++i) threes[i] = static_cast<uint8_t>(i % 8);
  EXPECT_THAT(pack(twos, 2), testing::ElementsAre(0xE4E4E4E4u));
  EXPECT_THAT(pack(threes, 3), testing::ElementsAre(0x88FAC688u, 0xC688FAC6u, 0xFAC688FAu));
  EXPECT_THAT(pack({0, 1, 2, 3, 4, 5, 6, 7}, 4), testing::ElementsAre(0x76543210u));
  EXPECT_THAT(pack({1, 2, 3, 4}, 8), testing::ElementsAre(0x04030201u));
}

TEST(BitPacking, GivesTheSymmetricConstantsOfGptqV2) {
  EXPECT_THAT(pack(std::vector<uint8_t>(16, 2), 2), testing::ElementsAre(0xAAAAAAAAu));
  EXPECT_THAT(pack(std::vector<uint8_t>(32, 4), 3),
              testing::ElementsAre(0x24924924u, 0x49249249u, 0x92492492u));
  EXPECT_THAT(pack(std::vector<uint8_t>(8, 8), 4), testing::ElementsAre(0x88888888u));
  EXPECT_THAT(pack(std::vector<uint8_t>(4, 128), 8), testing::ElementsAre(0x80808080u));
}

TEST(BitPacking, RoundTripsEveryWidthAndLength) {
  std::mt19937 random(1);
  for (int bits : {2, 3, 4, 8}) {
    for (int64_t cols = 1; cols <= 130; ++cols) {
      const int64_t rows = 1 + cols % 4;
      std::vector<uint8_t> values(rows * cols);
      for (uint8_t& v : values) v = static_cast<uint8_t>(random() & ((1u << bits) - 1));
      const std::vector<uint32_t> words = pack_rows(values, rows, cols, bits);
      ASSERT_EQ(static_cast<int64_t>(words.size()), rows * packed_words(cols, bits));
      ASSERT_EQ(unpack_rows(words, rows, cols, bits), values) << bits << " bits, " << cols;
    }
  }
}

TEST(BitPacking, EveryBitOfAFullStreamCarriesOneValue) {
  for (int bits : {2, 3, 4, 8}) {
    for (size_t i = 0; i < 32; ++i) {
      std::vector<uint8_t> values(32, 0);
      values[i] = static_cast<uint8_t>((1u << bits) - 1);
      const std::vector<uint32_t> words = pack(values, bits);
      for (size_t bit = 0; bit < 32u * bits; ++bit) {
        ASSERT_EQ(words[bit / 32] >> (bit % 32) & 1u, bit / bits == i ? 1u : 0u) << bits << i;
      }
    }
  }
}

TEST(BitPacking, BitsAboveTheWidthDoNotReachANeighbour) {
  EXPECT_THAT(pack({0xff, 0, 0, 0, 0, 0, 0, 0}, 4), testing::ElementsAre(0x0000000Fu));
}

}  // namespace
}  // namespace qaas
