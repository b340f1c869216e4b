#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

namespace qaas {

/// Element types a safetensors file may hold (the names of the format).
enum class Dtype { kBool, kU8, kI8, kI16, kU16, kF16, kBf16, kI32, kU32, kF32, kF64, kI64, kU64 };

/// "F32", "BF16", ... as the format spells it.
std::string_view dtype_name(Dtype dtype);
int64_t dtype_size(Dtype dtype);  ///< bytes per element

/// A tensor inside a mapped file: valid as long as the SafetensorsFile it came from.
struct TensorView {
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  ///< row-major, little-endian, exactly shape * dtype_size
};

/// A safetensors file mapped read-only. Opening checks the whole header against the rules of the
/// format and the file's size, so a view handed out never reaches outside the file; values are not
/// looked at. Strict: duplicate keys, leading blanks, holes, overlaps and trailing bytes are refused.
class SafetensorsFile {
 public:
  /// kNotFound, or kInvalidArgument that names the file and the rule it breaks.
  static absl::StatusOr<SafetensorsFile> open(const std::filesystem::path& path);

  const std::map<std::string, TensorView>& tensors() const;
  const std::map<std::string, std::string>& metadata() const;

 private:
  struct Mapping;
  std::shared_ptr<const Mapping> mapping_;
};

/// A tensor to be written; `bytes` must outlive the call to write_safetensors.
struct TensorToWrite {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

/// Writes a file the reference reader accepts: tensors by alignment then name, header padded to 8
/// bytes, metadata {"format": "pt"} plus `metadata`. Written beside `path`, synced, then renamed.
/// Same input, same bytes. kResourceExhausted when the disk is full.
absl::Status write_safetensors(const std::filesystem::path& path,
                               std::vector<TensorToWrite> tensors,
                               const std::map<std::string, std::string>& metadata = {});

}  // namespace qaas
