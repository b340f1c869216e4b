#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "storage/checkpoint/safetensors.h"
#include "workers/engine/quant/quantized_weight.h"

/// The GPTQ v2 layout of a quantized projection with N outputs and K inputs: a pure re-packing of
/// QuantizedWeight and back. v2 stores zero points as they are (v1 stores one less and cannot hold
/// 0). Codes are packed along K, zero points along N; three-bit values straddle words.
namespace qaas {

/// The grid of one projection as the layout describes it.
struct GptqGrid {
  int bits = 0;            ///< 2, 3, 4 or 8; 0: the projection keeps full precision
  int64_t group_size = 0;  ///< divides K; -1 only in a configuration's base: the whole row
  bool symmetric = false;  ///< every zero point is 2^(bits-1)

  friend bool operator==(const GptqGrid&, const GptqGrid&) = default;
};

/// The tensors `<projection>.qweight`, `.qzeros`, `.scales`, `.g_idx`.
struct GptqTensors {
  std::vector<uint32_t> qweight;  ///< [K * bits / 32, N], I32
  std::vector<uint32_t> qzeros;   ///< [K / group_size, N * bits / 32], I32
  std::vector<uint16_t> scales;   ///< [K / group_size, N], F16
  std::vector<int32_t> g_idx;     ///< [K], I32: k / group_size
};

/// Shape and type of each of the four tensors, by suffix ("qweight", ...).
struct GptqTensorSpec {
  std::string suffix;
  Dtype dtype;
  std::vector<int64_t> shape;
};
std::vector<GptqTensorSpec> gptq_tensor_specs(int64_t rows, int64_t cols, const GptqGrid& grid);

/// Whether the layout can hold `weight`. kInvalidArgument, naming the projection, for: rows or cols
/// that are no multiples of 32, an unknown width, a group size that does not divide cols, arrays of
/// the wrong size, a zero point beyond the largest code or, on a symmetric grid, off the mid-point,
/// and a scale that is not a positive normal fp16 number.
absl::Status check_gptq(const std::string& projection, const QuantizedWeight& weight);

/// The tensors of `weight`; fails as check_gptq does.
absl::StatusOr<GptqTensors> pack_gptq(const std::string& projection, const QuantizedWeight& weight);

/// The inverse of pack_gptq, from the tensors of a file: `tensors` holds at least
/// `<projection>.qweight` and its three siblings with the types and shapes of gptq_tensor_specs
/// (checked before by the reader). kInvalidArgument, naming the tensor, for act-order (g_idx other
/// than k / group_size) and for whatever check_gptq refuses.
absl::StatusOr<QuantizedWeight> unpack_gptq(const std::string& projection, int64_t rows,
                                            int64_t cols, const GptqGrid& grid,
                                            const std::map<std::string, TensorView>& tensors);

}  // namespace qaas
