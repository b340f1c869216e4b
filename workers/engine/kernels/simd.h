#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/// Vectors of the width the including file is compiled for. Only the *_generic, *_avx2 and
/// *_avx512 sources include this header: everything sits in an unnamed namespace and uses no
/// standard-library template, so that no function compiled for one instruction set can be linked
/// into another's place.
///
/// Every operation is correctly rounded (no fused multiply-add, no approximate reciprocal) and
/// sums always run over kLanes partial sums that are folded by one fixed tree, so each instruction
/// set gives the same bytes.
namespace qaas::kernels {
namespace {

#define QAAS_INLINE inline __attribute__((always_inline))
/// Everything a loop calls is inlined into it: partial sums stay in registers.
#define QAAS_LOOP __attribute__((flatten))

#if defined(__AVX512F__)
constexpr int64_t kWidth = 16;
#elif defined(__AVX2__)
constexpr int64_t kWidth = 8;
#else
constexpr int64_t kWidth = 4;
#endif
constexpr int64_t kLanes = 16;               ///< partial sums of every reduction
constexpr int64_t kParts = kLanes / kWidth;  ///< vectors that hold them

typedef float Floats __attribute__((vector_size(4 * kWidth)));
typedef int32_t Ints __attribute__((vector_size(4 * kWidth)));
typedef uint32_t Words __attribute__((vector_size(4 * kWidth)));
typedef uint16_t Halves __attribute__((vector_size(2 * kWidth)));
typedef uint8_t Bytes __attribute__((vector_size(kWidth)));
typedef float Floats8 __attribute__((vector_size(32)));
typedef float Floats4 __attribute__((vector_size(16)));

QAAS_INLINE Floats broadcast(float x) { return x - Floats{}; }

QAAS_INLINE Floats bits_to_floats(Words x) { return reinterpret_cast<Floats>(x); }
QAAS_INLINE Words floats_to_bits(Floats x) { return reinterpret_cast<Words>(x); }

QAAS_INLINE Floats load(const float* from) {
  Floats x;
  __builtin_memcpy(&x, from, sizeof x);
  return x;
}
QAAS_INLINE Floats load(const uint16_t* from) {
  Halves x;
  __builtin_memcpy(&x, from, sizeof x);
  return bits_to_floats(__builtin_convertvector(x, Words) << 16);
}
QAAS_INLINE void store(float* to, Floats x) { __builtin_memcpy(to, &x, sizeof x); }

/// Nearest bf16, half to even; a NaN stays a NaN.
QAAS_INLINE void store(uint16_t* to, Floats x) {
  const Words bits = floats_to_bits(x);
  const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Words quiet_nan = (bits >> 16) | 0x40u;
  const Halves y = __builtin_convertvector(x == x ? rounded : quiet_nan, Halves);
  __builtin_memcpy(to, &y, sizeof y);
}
QAAS_INLINE void store(uint8_t* to, Floats x) {
  const Bytes y = __builtin_convertvector(__builtin_convertvector(x, Ints), Bytes);
  __builtin_memcpy(to, &y, sizeof y);
}

// The maskz forms below are the plain instructions: GCC 12 warns about its own plain intrinsics.

/// lower > x ? lower : x, so a NaN in x stays.
QAAS_INLINE Floats at_least(Floats x, float lower) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_maskz_max_ps(0xffff, broadcast(lower), x));
#elif defined(__AVX2__)
  return reinterpret_cast<Floats>(_mm256_max_ps(broadcast(lower), x));
#elif defined(__x86_64__)
  return reinterpret_cast<Floats>(_mm_max_ps(broadcast(lower), x));
#else
  return lower > x ? broadcast(lower) : x;
#endif
}
/// upper < x ? upper : x, so a NaN in x stays.
QAAS_INLINE Floats at_most(Floats x, float upper) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_maskz_min_ps(0xffff, broadcast(upper), x));
#elif defined(__AVX2__)
  return reinterpret_cast<Floats>(_mm256_min_ps(broadcast(upper), x));
#elif defined(__x86_64__)
  return reinterpret_cast<Floats>(_mm_min_ps(broadcast(upper), x));
#else
  return upper < x ? broadcast(upper) : x;
#endif
}

QAAS_INLINE Floats square_root(Floats x) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_maskz_sqrt_ps(0xffff, x));
#elif defined(__AVX2__)
  return reinterpret_cast<Floats>(_mm256_sqrt_ps(x));
#elif defined(__x86_64__)
  return reinterpret_cast<Floats>(_mm_sqrt_ps(x));
#else
  Floats y;
  for (int i = 0; i < kWidth; ++i) y[i] = __builtin_sqrtf(x[i]);
  return y;
#endif
}

/// Half to even, exact for |x| < 2^22: adding 1.5 * 2^23 pushes the fraction out of the mantissa.
QAAS_INLINE Floats round_half_even(Floats x) {
  constexpr float kMagic = 12582912.0f;
  return (x + kMagic) - kMagic;
}

/// Folds the partial sums: lane i takes lane i + 8, then i + 4, i + 2, i + 1.
QAAS_INLINE float sum_lanes(const Floats (&part)[kParts]) {
#if defined(__AVX512F__)
  const Floats8 by8 = __builtin_shufflevector(part[0], part[0], 0, 1, 2, 3, 4, 5, 6, 7) +
                      __builtin_shufflevector(part[0], part[0], 8, 9, 10, 11, 12, 13, 14, 15);
#elif defined(__AVX2__)
  const Floats8 by8 = part[0] + part[1];
#endif
#if defined(__AVX2__)
  const Floats4 by4 =
      __builtin_shufflevector(by8, by8, 0, 1, 2, 3) + __builtin_shufflevector(by8, by8, 4, 5, 6, 7);
#else
  const Floats4 by4 = (part[0] + part[2]) + (part[1] + part[3]);
#endif
  const Floats4 by2 = by4 + __builtin_shufflevector(by4, by4, 2, 3, 2, 3);
  return by2[0] + by2[1];
}

/// Calls body(first, n) for each run of kLanes elements of [0, count), n below kLanes for the last.
/// A body that is inlined with a constant n has no cost for the whole runs.
template <class Whole, class Tail>
QAAS_INLINE void for_each_run(int64_t count, const Whole& whole, const Tail& tail) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) whole(i);
  if (i < count) tail(i, static_cast<int>(count - i));
}

/// A run shorter than kLanes, padded with zeros, so that it takes the same path as a whole one.
template <class T>
struct PaddedRun {
  T values[kLanes];
  PaddedRun() {
    for (int i = 0; i < kLanes; ++i) values[i] = T{};
  }
  PaddedRun(const T* from, int n) : PaddedRun() {
    for (int i = 0; i < n; ++i) values[i] = from[i];
  }
  void store_to(T* to, int n) const {
    for (int i = 0; i < n; ++i) to[i] = values[i];
  }
};

/// "All kWidth lanes", where a count of lanes is asked for: the case without masks.
struct AllLanes {};

QAAS_INLINE Ints lane_numbers() {
  Ints lane;
  for (int i = 0; i < kWidth; ++i) lane[i] = i;
  return lane;
}

/// x in the first n lanes, otherwise in the rest.
QAAS_INLINE Floats first_lanes(Floats x, AllLanes, Floats) { return x; }
QAAS_INLINE Floats first_lanes(Floats x, int n, Floats otherwise) {
  return lane_numbers() < n ? x : otherwise;
}

/// The first n elements, zeros behind them; nothing beyond them is touched.
template <class T>
QAAS_INLINE Floats load_first(const T* from, AllLanes) {
  return load(from);
}
template <class T>
QAAS_INLINE void store_first(T* to, Floats x, AllLanes) {
  store(to, x);
}
#if defined(__AVX512F__)
QAAS_INLINE Floats load_first(const float* from, int n) {
  return reinterpret_cast<Floats>(
      _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), from));
}
QAAS_INLINE Floats load_first(const uint16_t* from, int n) {
  const Halves x = reinterpret_cast<Halves>(
      _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1u), from));
  return bits_to_floats(__builtin_convertvector(x, Words) << 16);
}
QAAS_INLINE void store_first(float* to, Floats x, int n) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << n) - 1u), x);
}
QAAS_INLINE void store_first(uint16_t* to, Floats x, int n) {
  uint16_t all[kWidth];
  store(all, x);
  _mm256_mask_storeu_epi16(to, static_cast<__mmask16>((1u << n) - 1u),
                           _mm256_loadu_si256(reinterpret_cast<const __m256i*>(all)));
}
#else
template <class T>
QAAS_INLINE Floats load_first(const T* from, int n) {
  T all[kWidth] = {};
  for (int i = 0; i < n; ++i) all[i] = from[i];
  return load(all);
}
template <class T>
QAAS_INLINE void store_first(T* to, Floats x, int n) {
  T all[kWidth];
  store(all, x);
  for (int i = 0; i < n; ++i) to[i] = all[i];
}
#endif

/// Calls body(column, part, lanes) for each vector of [0, count): element i belongs to part
/// i % kLanes / kWidth of the partial sums on every instruction set. `lanes` is AllLanes, or an int
/// for the last, incomplete vector.
template <class Body>
QAAS_INLINE void for_each_part(int64_t count, const Body& body) {
  int64_t c = 0;
  for (; c + kLanes <= count; c += kLanes) {
    for (int p = 0; p < kParts; ++p) body(c + p * kWidth, p, AllLanes{});
  }
  for (int p = 0; p < kParts; ++p) {
    const int64_t left = count - (c + p * kWidth);
    if (left >= kWidth) {
      body(c + p * kWidth, p, AllLanes{});
    } else if (left > 0) {
      body(c + p * kWidth, p, static_cast<int>(left));
    }
  }
}

}  // namespace
}  // namespace qaas::kernels
