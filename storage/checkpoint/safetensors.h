#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

namespace qaas {

/// Element types a safetensors file may hold (the names of the format), by rising alignment: the
/// order in which the reference writer lays tensors out, last first.
enum class Dtype { kBool, kU8, kI8, kI16, kU16, kF16, kBf16, kI32, kU32, kF32, kF64, kI64, kU64 };

/// "F32", "BF16", ... as the format spells it.
std::string dtype_name(Dtype dtype);
int64_t dtype_size(Dtype dtype);  ///< bytes per element
/// The dtype that the format spells `name`; none for a name this service does not know.
std::optional<Dtype> dtype_from_name(std::string_view name);

/// A tensor inside a mapped file: valid as long as the SafetensorsFile it came from (or a copy).
struct TensorView {
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;
  /// Row-major, little-endian, exactly shape * dtype_size. Not necessarily aligned to the element:
  /// copy the bytes out, do not cast the pointer.
  std::span<const std::byte> bytes;
};

/// A safetensors file mapped read-only. Opening checks the whole header against the rules of the
/// format and the file's size, so a view handed out never reaches outside the file; values are not
/// looked at. Strict: duplicate keys, leading blanks, holes, overlaps and trailing bytes are
/// refused. Cheap to copy (the mapping is shared); safe to read from several threads.
class SafetensorsFile {
 public:
  /// kNotFound, or kInvalidArgument that names the file and the rule it breaks; other failures of
  /// the system keep their errno's code.
  static absl::StatusOr<SafetensorsFile> open(const std::filesystem::path& path);

  const std::map<std::string, TensorView>& tensors() const;
  const std::map<std::string, std::string>& metadata() const;
  int64_t file_size() const;

  /// kFailedPrecondition if the file was written to, shortened or replaced since open(). Reading a
  /// view of a shortened file ends the process with SIGBUS, so call it between long reads.
  absl::Status check_unchanged() const;

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
/// Same input, same bytes. kInvalidArgument names a tensor whose bytes do not fit its shape, a name
/// used twice or not writable; kResourceExhausted when the disk is full. `path` is untouched then.
absl::Status write_safetensors(const std::filesystem::path& path,
                               std::vector<TensorToWrite> tensors,
                               const std::map<std::string, std::string>& metadata = {});

}  // namespace qaas
