#include "workers/engine/quant/bit_packing.h"

#include <cassert>

namespace qaas {
namespace {

[[maybe_unused]] bool known_width(int bits) {
  return bits == 2 || bits == 3 || bits == 4 || bits == 8;
}

}  // namespace

int64_t packed_words(int64_t count, int bits) { return (count * bits + 31) / 32; }

void pack_stream(std::span<const uint8_t> values, int bits, std::span<uint32_t> words) {
  assert(known_width(bits));
  assert(static_cast<int64_t>(words.size()) ==
         packed_words(static_cast<int64_t>(values.size()), bits));
  const uint32_t mask = (1u << bits) - 1u;
  uint64_t pending = 0;
  int pending_bits = 0;
  size_t word = 0;
  for (const uint8_t value : values) {
    pending |= static_cast<uint64_t>(value & mask) << pending_bits;
    pending_bits += bits;
    if (pending_bits >= 32) {
      words[word++] = static_cast<uint32_t>(pending);
      pending >>= 32;
      pending_bits -= 32;
    }
  }
  if (pending_bits > 0) words[word] = static_cast<uint32_t>(pending);
}

void unpack_stream(std::span<const uint32_t> words, int bits, std::span<uint8_t> values) {
  assert(known_width(bits));
  assert(static_cast<int64_t>(words.size()) >=
         packed_words(static_cast<int64_t>(values.size()), bits));
  const uint32_t mask = (1u << bits) - 1u;
  uint64_t pending = 0;
  int pending_bits = 0;
  size_t word = 0;
  for (uint8_t& value : values) {
    if (pending_bits < bits) {
      pending |= static_cast<uint64_t>(words[word++]) << pending_bits;
      pending_bits += 32;
    }
    value = static_cast<uint8_t>(pending & mask);
    pending >>= bits;
    pending_bits -= bits;
  }
}

std::vector<uint32_t> pack_rows(std::span<const uint8_t> values, int64_t rows, int64_t cols,
                                int bits) {
  assert(static_cast<int64_t>(values.size()) == rows * cols);
  const int64_t row_words = packed_words(cols, bits);
  std::vector<uint32_t> words(rows * row_words);
  for (int64_t r = 0; r < rows; ++r) {
    pack_stream(values.subspan(r * cols, cols), bits,
                std::span(words).subspan(r * row_words, row_words));
  }
  return words;
}

std::vector<uint8_t> unpack_rows(std::span<const uint32_t> words, int64_t rows, int64_t cols,
                                 int bits) {
  const int64_t row_words = packed_words(cols, bits);
  assert(static_cast<int64_t>(words.size()) == rows * row_words);
  std::vector<uint8_t> values(rows * cols);
  for (int64_t r = 0; r < rows; ++r) {
    unpack_stream(words.subspan(r * row_words, row_words), bits,
                  std::span(values).subspan(r * cols, cols));
  }
  return values;
}

}  // namespace qaas
