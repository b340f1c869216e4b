#pragma once

#include <cstdint>

/// How what flows into a projection is quantized, without torch; activation_quant.h has the
/// arithmetic.
namespace qaas {

/// Levels -Q .. Q with Q = 2^(bits-1) - 1.
struct ActivationGrid {
  int bits = 8;             ///< 4 or 8
  int64_t group_size = -1;  ///< consecutive inputs of a token that share a scale; -1: all of them

  int64_t largest_level() const { return (int64_t{1} << (bits - 1)) - 1; }
  friend bool operator==(const ActivationGrid&, const ActivationGrid&) = default;
};

/// Smallest clip factor in use: with less, hardly an input would be within the grid.
inline constexpr float kMinClip = 1.0f / 64;

/// How one projection's input is quantized.
struct ActivationQuantizer {
  ActivationGrid grid;
  float clip = 1;  ///< share of each group's largest magnitude that is kept, kMinClip to 1

  friend bool operator==(const ActivationQuantizer&, const ActivationQuantizer&) = default;
};

}  // namespace qaas
