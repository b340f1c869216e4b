#pragma once

#include <cstdint>
#include <span>
#include <vector>

/// The one bit packer. A stream is dense and little-endian: value i of `bits` bits occupies bits
/// i * bits .. i * bits + bits - 1 of a sequence of 32-bit words, the first value in the low bits
/// of the first word; a value may straddle two words (3 bits), unused high bits of the last are
/// zero. Every row of a matrix starts at a new word. Widths are 2, 3, 4 and 8. Programming errors
/// (another width, spans of the wrong size) abort through assert; nothing here fails otherwise.
/// Thread-safe.
namespace qaas {

/// Words that hold `count` values.
int64_t packed_words(int64_t count, int bits);

/// Packs `values` into `words` (packed_words(values.size(), bits) of them). Bits of a value above
/// the width are dropped.
void pack_stream(std::span<const uint8_t> values, int bits, std::span<uint32_t> words);

/// The inverse: fills all of `values` from the first packed_words(values.size(), bits) words.
void unpack_stream(std::span<const uint32_t> words, int bits, std::span<uint8_t> values);

/// [rows, cols] values to [rows, packed_words(cols, bits)] words.
std::vector<uint32_t> pack_rows(std::span<const uint8_t> values, int64_t rows, int64_t cols,
                                int bits);

/// [rows, packed_words(cols, bits)] words to [rows, cols] values.
std::vector<uint8_t> unpack_rows(std::span<const uint32_t> words, int64_t rows, int64_t cols,
                                 int bits);

}  // namespace qaas
