#include "storage/checkpoint/tensor_rules.h"

#include <algorithm>
#include <array>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include "storage/checkpoint/message_text.h"

namespace qaas {
namespace {

struct DtypeRow {
  const char* name;
  int64_t size;
};

// Indexed by Dtype.
constexpr std::array<DtypeRow, 13> kDtypes = {{{"BOOL", 1},
                                               {"U8", 1},
                                               {"I8", 1},
                                               {"I16", 2},
                                               {"U16", 2},
                                               {"F16", 2},
                                               {"BF16", 2},
                                               {"I32", 4},
                                               {"U32", 4},
                                               {"F32", 4},
                                               {"F64", 8},
                                               {"I64", 8},
                                               {"U64", 8}}};

}  // namespace

std::string dtype_name(Dtype dtype) { return kDtypes.at(static_cast<size_t>(dtype)).name; }

int64_t dtype_size(Dtype dtype) { return kDtypes.at(static_cast<size_t>(dtype)).size; }

std::optional<Dtype> dtype_from_name(std::string_view name) {
  for (size_t i = 0; i < kDtypes.size(); ++i) {
    if (kDtypes[i].name == name) return static_cast<Dtype>(i);
  }
  return std::nullopt;
}

absl::Status check_tensor_name(std::string_view name) {
  const bool all_printable =
      std::all_of(name.begin(), name.end(), [](char c) { return c >= 0x20 && c <= 0x7E; });
  if (!name.empty() && name.size() <= kMaxTensorName && all_printable && name != "__metadata__") {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("tensor name '", printable(name), "' (", name.size(), " bytes): expected 1 to ",
                   kMaxTensorName, " printable ASCII characters other than '__metadata__'"));
}

absl::StatusOr<int64_t> tensor_bytes(Dtype dtype, const std::vector<int64_t>& shape) {
  if (shape.size() > kMaxRank) {
    return absl::InvalidArgumentError(absl::StrCat(
        "shape has ", shape.size(), " dimensions, at most ", kMaxRank, " are accepted"));
  }
  int64_t bytes = dtype_size(dtype);
  for (int64_t dimension : shape) {
    if (dimension < 0 || __builtin_mul_overflow(bytes, dimension, &bytes)) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape ", shape_text(shape), " is negative or beyond 2^63 bytes"));
    }
  }
  return bytes;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

}  // namespace qaas
