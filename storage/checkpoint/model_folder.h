#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "storage/checkpoint/model_config.h"
#include "storage/checkpoint/safetensors.h"

namespace qaas {

/// A Hugging Face model folder, opened and checked: config.json understood, one safetensors file or
/// a sharded index, every tensor the config calls for present exactly once with its shape and a
/// floating type (F32, F16, BF16), and nothing else (rotary inv_freq buffers are ignored, and so is
/// the head of a tied model if it equals the embedding). Cheap to copy; safe to read from several
/// threads.
class ModelFolder {
 public:
  /// kNotFound or kInvalidArgument with the file, the tensor and what was expected.
  static absl::StatusOr<ModelFolder> open(const std::filesystem::path& folder);

  const std::filesystem::path& path() const { return path_; }
  const ModelConfig& config() const { return config_; }

  /// The tensor called `name`; it must be one of expected_tensors(config()).
  const TensorView& tensor(const std::string& name) const;

  /// Bytes of all weight files.
  int64_t weight_bytes() const { return weight_bytes_; }

  /// kFailedPrecondition if a weight file changed since open(): see SafetensorsFile.
  absl::Status check_unchanged() const;

  /// Names of the regular files of the folder that belong beside a copy of the model (config,
  /// tokenizer, ...), sorted: no weights, no shard index, no hidden file, nothing pickled.
  const std::vector<std::string>& side_files() const { return side_files_; }

 private:
  std::filesystem::path path_;
  ModelConfig config_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, TensorView> tensors_;
  std::vector<std::string> side_files_;
  int64_t weight_bytes_ = 0;
};

}  // namespace qaas
