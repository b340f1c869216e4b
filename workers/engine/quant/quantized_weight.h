#pragma once

#include <cstdint>
#include <vector>

namespace qaas {

/// The canonical result of quantizing one projection [rows, cols]:
///   weight[r, c] = scale[r, c / group_size] * (code[r, c] - zero_point[r, c / group_size]).
/// Every exporter is a pure re-packing of it. A grid field is where fp4 would enter.
struct QuantizedWeight {
  int64_t rows = 0;  ///< outputs
  int64_t cols = 0;  ///< inputs
  int bits = 0;      ///< 2, 3, 4 or 8
  int64_t group_size = 0;
  bool symmetric = false;            ///< then every zero point is 2^(bits-1)
  std::vector<uint32_t> packed;      ///< [rows, cols * bits / 32] dense little-endian codes
  std::vector<uint8_t> zero_points;  ///< [rows, cols / group_size]
  std::vector<float> scales;         ///< [rows, cols / group_size], each exact in fp16
};

}  // namespace qaas
