#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "storage/checkpoint/model_folder.h"

namespace qaas::testing {

/// A Llama small enough to train in milliseconds. Groups of 32 and 64 divide every projection.
struct TinyLlamaOptions {
  int64_t hidden = 64;
  int64_t intermediate = 128;
  int64_t blocks = 2;
  int64_t heads = 4;
  int64_t kv_heads = 2;  ///< grouped key/value heads
  int64_t head_dim = 16;
  int64_t vocab = 96;
  int64_t max_positions = 64;
  bool tied = false;
  Dtype dtype = Dtype::kF32;  ///< of the file: F32, F16 or BF16
  std::string rope_scaling;   ///< JSON object for "rope_scaling"; empty: none
  uint64_t seed = 1;
};

/// config.json of such a model.
std::string tiny_llama_config(const TinyLlamaOptions& options);

/// May change the values of a tensor before they are written.
using TensorEdit = std::function<void(const std::string& name, std::vector<float>& values)>;

/// Writes a Hugging Face folder with random weights (same options, same bytes) and opens it. Throws
/// where that fails.
ModelFolder write_tiny_llama(const std::filesystem::path& folder,
                             const TinyLlamaOptions& options = {}, const TensorEdit& edit = {});

/// Writes a dataset of `count` token ids below `vocab` into `folder`: a random walk, so that there
/// is something to learn.
void write_ids(const std::filesystem::path& folder, int64_t count, int64_t vocab, uint64_t seed);

}  // namespace qaas::testing
