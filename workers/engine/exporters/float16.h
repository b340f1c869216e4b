#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "storage/checkpoint/safetensors.h"

/// Sixteen-bit floats as stored in files. Portable: no hardware conversion is used.
namespace qaas {

/// The nearest fp16, half to even; infinite beyond 65520; a NaN stays a NaN.
uint16_t to_float16(float x);
float from_float16(uint16_t bits);

/// Whether `x` is a positive, normal fp16 number exactly: what a stored scale may be.
bool is_float16_scale(float x);

/// `values` rounded half to even to `dtype` (F32, F16 or BF16), as file bytes. nullopt if a value
/// is not finite once rounded, or for another dtype.
std::optional<std::vector<std::byte>> encode_floats(std::span<const float> values, Dtype dtype);

}  // namespace qaas
