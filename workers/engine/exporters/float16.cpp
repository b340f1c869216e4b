#include "workers/engine/exporters/float16.h"

#include <array>
#include <bit>
#include <cmath>

namespace qaas {
namespace {

constexpr uint32_t kInfinity16 = 0x7c00;

/// The nearest bf16, half to even; `x` is not a NaN.
uint16_t to_bfloat16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

template <class T>
void append(std::vector<std::byte>& bytes, T value) {
  const auto raw = std::bit_cast<std::array<std::byte, sizeof(T)>>(value);
  bytes.insert(bytes.end(), raw.begin(), raw.end());
}

}  // namespace

uint16_t to_float16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | kInfinity16);  // 2^16 and up
  if (magnitude < 0x38800000u) {
    // Below 2^-14 fp16 has a fixed step of 2^-24: adding 0.5 leaves just that many bits, and the
    // addition rounds half to even.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

float from_float16(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  if (magnitude >= kInfinity16) {
    return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  }
  if (magnitude < 0x400u) {
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
}

bool is_float16_scale(float x) {
  return x >= 0x1p-14f && x <= 65504.0f && from_float16(to_float16(x)) == x;
}

std::optional<std::vector<std::byte>> encode_floats(std::span<const float> values, Dtype dtype) {
  std::vector<std::byte> bytes;
  for (const float x : values) {
    if (!std::isfinite(x)) return std::nullopt;
    if (dtype == Dtype::kF32) {
      append(bytes, x);
    } else if (dtype == Dtype::kBf16) {
      const uint16_t stored = to_bfloat16(x);
      if ((stored & 0x7f80u) == 0x7f80u) return std::nullopt;
      append(bytes, stored);
    } else if (dtype == Dtype::kF16) {
      const uint16_t stored = to_float16(x);
      if ((stored & kInfinity16) == kInfinity16) return std::nullopt;
      append(bytes, stored);
    } else {
      return std::nullopt;
    }
  }
  return bytes;
}

}  // namespace qaas
