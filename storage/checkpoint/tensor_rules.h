#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "storage/checkpoint/safetensors.h"

/// The rules that the safetensors reader and writer share.
namespace qaas {

inline constexpr int64_t kMaxSafetensorsHeader =
    100'000'000;                                 // bytes; the reference reader's limit
inline constexpr int64_t kMaxTensors = 500'000;  // in one file
inline constexpr size_t kMaxTensorName = 1024;   // bytes
inline constexpr size_t kMaxRank = 8;

/// A tensor name is 1 to 1024 printable ASCII characters, and not "__metadata__".
absl::Status check_tensor_name(std::string_view name);

/// Bytes of a tensor. kInvalidArgument for a negative dimension, too many, or an overflow.
absl::StatusOr<int64_t> tensor_bytes(Dtype dtype, const std::vector<int64_t>& shape);

/// "[4096, 11008]"
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace qaas
