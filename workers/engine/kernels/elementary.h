#pragma once

#include "workers/engine/kernels/simd.h"

/// Elementary functions over vectors, for the files that include simd.h.
namespace qaas::kernels {
namespace {

/// e^x within 2 units in the last place for -87 <= x <= 88; saturates beyond, so that the smallest
/// result is about 1e-38 rather than 0. NaN stays NaN. Cody and Waite: x = n ln 2 + r, |r| <= ln 2
/// / 2, e^r by its Taylor polynomial of degree 7 (truncation below 1e-8).
QAAS_INLINE Floats exponential(Floats x) {
  x = at_most(at_least(x, -87.0f), 88.0f);
  const Floats n = round_half_even(x * 1.44269504f);
  const Floats r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Floats p = broadcast(1.0f / 5040.0f);
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = (p * r) * r + (r + 1.0f);
  const Ints exponent = __builtin_convertvector(n, Ints) + 127;
  return p * bits_to_floats(reinterpret_cast<Words>(exponent) << 23);
}

QAAS_INLINE float max_lanes(const Floats (&part)[kParts]) {
  Floats most = part[0];
  for (int p = 1; p < kParts; ++p) most = part[p] > most ? part[p] : most;
  float result = most[0];
  for (int i = 1; i < kWidth; ++i) result = most[i] > result ? most[i] : result;
  return result;
}

/// ln(x) within 2 units in the last place for positive normal x, absolute near 1; NaN stays NaN.
/// x = 2^n m with m in [sqrt(1/2), sqrt(2)); ln m by the minimax polynomial of the Cephes library's
/// logf.
QAAS_INLINE Floats logarithm(Floats x) {
  constexpr uint32_t kRootHalfBits = 0x3f3504f3u;
  const Words shifted = floats_to_bits(x) - kRootHalfBits;
  const Ints exponent = reinterpret_cast<Ints>(shifted) >> 23;
  const Floats f = bits_to_floats((shifted & 0x7fffffu) + kRootHalfBits) - 1.0f;
  const Floats n = __builtin_convertvector(exponent, Floats);
  Floats p = broadcast(7.0376836292e-2f);
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const Floats square = f * f;
  const Floats rest = p * f * square + n * -2.12194440e-4f - square * 0.5f;
  const Floats result = (f + rest) + n * 0.693359375f;
  return x == x ? result : x;
}

}  // namespace
}  // namespace qaas::kernels
