#include "workers/engine/exporters/gptq.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <span>

#include <absl/strings/str_cat.h>

#include "workers/engine/exporters/float16.h"
#include "workers/engine/quant/bit_packing.h"

namespace qaas {
namespace {

static_assert(std::endian::native == std::endian::little,
              "tensors are stored as they lie in memory");

absl::Status refuse(const std::string& projection, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("projection '", projection, "': ", why));
}

/// [rows, cols] to [cols, rows], in tiles that stay in the cache.
template <class T>
std::vector<T> transposed(std::span<const T> from, int64_t rows, int64_t cols) {
  constexpr int64_t kTile = 64;
  std::vector<T> to(from.size());
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    for (int64_t c0 = 0; c0 < cols; c0 += kTile) {
      for (int64_t r = r0; r < std::min(r0 + kTile, rows); ++r) {
        for (int64_t c = c0; c < std::min(c0 + kTile, cols); ++c) {
          to[c * rows + r] = from[r * cols + c];
        }
      }
    }
  }
  return to;
}

template <class T>
std::vector<T> copy_out(const TensorView& view) {
  std::vector<T> values(view.bytes.size() / sizeof(T));
  std::memcpy(values.data(), view.bytes.data(), values.size() * sizeof(T));
  return values;
}

absl::Status check_layout(const std::string& projection, int64_t rows, int64_t cols,
                          const GptqGrid& grid) {
  if (rows <= 0 || rows % 32 != 0) {
    return refuse(projection, absl::StrCat(rows, " outputs, expected a multiple of 32"));
  }
  if (cols <= 0 || cols % 32 != 0) {
    return refuse(projection, absl::StrCat(cols, " inputs, expected a multiple of 32"));
  }
  if (grid.bits != 2 && grid.bits != 3 && grid.bits != 4 && grid.bits != 8) {
    return refuse(projection, absl::StrCat(grid.bits, " bits, accepted: 2, 3, 4, 8"));
  }
  if (grid.group_size <= 0 || cols % grid.group_size != 0) {
    return refuse(projection, absl::StrCat("group size ", grid.group_size, " does not divide ",
                                           cols, " inputs"));
  }
  return absl::OkStatus();
}

absl::Status check_values(const std::string& projection, const QuantizedWeight& weight) {
  const int64_t groups = weight.cols / weight.group_size;
  const int largest = (1 << weight.bits) - 1;
  const int middle = 1 << (weight.bits - 1);
  for (int64_t i = 0; i < weight.rows * groups; ++i) {
    const auto where = [&] { return absl::StrCat("output ", i / groups, ", group ", i % groups); };
    const int zero = weight.zero_points[i];
    if (zero > largest) {
      return refuse(projection, absl::StrCat(where(), ": zero point ", zero,
                                             ", the largest code is ", largest));
    }
    if (weight.symmetric && zero != middle) {
      return refuse(projection, absl::StrCat(where(), ": zero point ", zero,
                                             ", a symmetric grid has ", middle));
    }
    if (!is_float16_scale(weight.scales[i])) {
      return refuse(
          projection,
          absl::StrCat(where(), ": scale ", weight.scales[i],
                       " is not a positive normal fp16 number, and would change on disk"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<GptqTensorSpec> gptq_tensor_specs(int64_t rows, int64_t cols, const GptqGrid& grid) {
  const int64_t groups = cols / grid.group_size;
  return {{"qweight", Dtype::kI32, {packed_words(cols, grid.bits), rows}},
          {"qzeros", Dtype::kI32, {groups, packed_words(rows, grid.bits)}},
          {"scales", Dtype::kF16, {groups, rows}},
          {"g_idx", Dtype::kI32, {cols}}};
}

absl::Status check_gptq(const std::string& projection, const QuantizedWeight& weight) {
  const GptqGrid grid = {weight.bits, weight.group_size, weight.symmetric};
  if (auto status = check_layout(projection, weight.rows, weight.cols, grid); !status.ok()) {
    return status;
  }
  const int64_t words = weight.rows * packed_words(weight.cols, weight.bits);
  const int64_t groups = weight.rows * (weight.cols / weight.group_size);
  if (std::ssize(weight.packed) != words || std::ssize(weight.zero_points) != groups ||
      std::ssize(weight.scales) != groups) {
    return refuse(projection,
                  absl::StrCat(weight.packed.size(), " words, ", weight.zero_points.size(),
                               " zero points, ", weight.scales.size(), " scales; expected ", words,
                               ", ", groups, ", ", groups));
  }
  return check_values(projection, weight);
}

absl::StatusOr<GptqTensors> pack_gptq(const std::string& projection,
                                      const QuantizedWeight& weight) {
  if (auto status = check_gptq(projection, weight); !status.ok()) return status;
  const int64_t groups = weight.cols / weight.group_size;
  GptqTensors tensors;
  // A packed row is already the stream along K: its words only change places.
  tensors.qweight =
      transposed<uint32_t>(weight.packed, weight.rows, packed_words(weight.cols, weight.bits));
  tensors.qzeros = pack_rows(transposed<uint8_t>(weight.zero_points, weight.rows, groups), groups,
                             weight.rows, weight.bits);
  for (const float scale : transposed<float>(weight.scales, weight.rows, groups)) {
    tensors.scales.push_back(to_float16(scale));
  }
  for (int64_t k = 0; k < weight.cols; ++k) {
    tensors.g_idx.push_back(static_cast<int32_t>(k / weight.group_size));
  }
  return tensors;
}

absl::StatusOr<QuantizedWeight> unpack_gptq(const std::string& projection, int64_t rows,
                                            int64_t cols, const GptqGrid& grid,
                                            const std::map<std::string, TensorView>& tensors) {
  if (auto status = check_layout(projection, rows, cols, grid); !status.ok()) return status;
  const auto view = [&](const char* suffix) -> const TensorView& {
    const auto found = tensors.find(absl::StrCat(projection, ".", suffix));
    assert(found != tensors.end());
    return found->second;
  };
  const std::vector<int32_t> g_idx = copy_out<int32_t>(view("g_idx"));
  for (int64_t k = 0; k < cols; ++k) {
    if (g_idx[k] != k / grid.group_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", projection, ".g_idx': input ", k, " is in group ", g_idx[k],
                       ", expected ", k / grid.group_size, " (act-order is not supported)"));
    }
  }
  const int64_t groups = cols / grid.group_size;
  QuantizedWeight weight = {.rows = rows,
                            .cols = cols,
                            .bits = grid.bits,
                            .group_size = grid.group_size,
                            .symmetric = grid.symmetric};
  weight.packed = transposed<uint32_t>(copy_out<uint32_t>(view("qweight")),
                                       packed_words(cols, grid.bits), rows);
  weight.zero_points = transposed<uint8_t>(
      unpack_rows(copy_out<uint32_t>(view("qzeros")), groups, rows, grid.bits), groups, rows);
  for (const uint16_t scale :
       transposed<uint16_t>(copy_out<uint16_t>(view("scales")), groups, rows)) {
    weight.scales.push_back(from_float16(scale));
  }
  if (auto status = check_values(projection, weight); !status.ok()) return status;
  return weight;
}

}  // namespace qaas
