#include "tests/support/tiny_llama.h"

#include <cmath>
#include <fstream>
#include <random>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include "storage/checkpoint/safetensors.h"
#include "workers/engine/exporters/float16.h"

namespace qaas::testing {
namespace {

const char* torch_dtype(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF16:
      return "float16";
    case Dtype::kBf16:
      return "bfloat16";
    default:
      return "float32";
  }
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path.string());
}

/// Norms near one, embeddings of size one half, projections that keep the size of their input.
void fill(const ExpectedTensor& tensor, std::mt19937_64& random, std::vector<float>& values) {
  std::normal_distribution<float> normal;
  const bool ends = tensor.name == "model.embed_tokens.weight" || tensor.name == "lm_head.weight";
  const float size = ends ? 0.5f : 1.0f / std::sqrt(static_cast<float>(tensor.shape.back()));
  for (float& x : values) {
    x = tensor.shape.size() == 1 ? 1.0f + 0.1f * normal(random) : size * normal(random);
  }
}

}  // namespace

std::string tiny_llama_config(const TinyLlamaOptions& options) {
  nlohmann::ordered_json config = {{"architectures", {"LlamaForCausalLM"}},
                                   {"model_type", "llama"},
                                   {"hidden_size", options.hidden},
                                   {"intermediate_size", options.intermediate},
                                   {"num_hidden_layers", options.blocks},
                                   {"num_attention_heads", options.heads},
                                   {"num_key_value_heads", options.kv_heads},
                                   {"head_dim", options.head_dim},
                                   {"hidden_act", "silu"},
                                   {"vocab_size", options.vocab},
                                   {"max_position_embeddings", options.max_positions},
                                   {"rms_norm_eps", 1e-5},
                                   {"rope_theta", 10000.0},
                                   {"tie_word_embeddings", options.tied},
                                   {"torch_dtype", torch_dtype(options.dtype)}};
  if (!options.rope_scaling.empty()) {
    config["rope_scaling"] = nlohmann::ordered_json::parse(options.rope_scaling);
  }
  return config.dump(2);
}

ModelFolder write_tiny_llama(const std::filesystem::path& folder, const TinyLlamaOptions& options,
                             const TensorEdit& edit) {
  const std::string json = tiny_llama_config(options);
  const auto config = parse_model_config(json);
  if (!config.ok()) throw std::runtime_error(config.status().ToString());
  std::filesystem::create_directories(folder);
  write_text(folder / "config.json", json);

  std::mt19937_64 random(options.seed);
  std::vector<std::vector<std::byte>> bytes;
  std::vector<TensorToWrite> tensors;
  for (const ExpectedTensor& tensor : expected_tensors(*config)) {
    size_t count = 1;
    for (const int64_t size : tensor.shape) count *= static_cast<size_t>(size);
    std::vector<float> values(count);
    fill(tensor, random, values);
    if (edit) edit(tensor.name, values);
    if (options.dtype == Dtype::kF32) {  // as they are, NaN included
      const auto raw = std::as_bytes(std::span<const float>(values));
      bytes.emplace_back(raw.begin(), raw.end());
    } else {
      bytes.push_back(encode_floats(values, options.dtype).value());
    }
    tensors.push_back({tensor.name, options.dtype, tensor.shape, bytes.back()});
  }
  const absl::Status written = write_safetensors(folder / "model.safetensors", tensors);
  if (!written.ok()) throw std::runtime_error(written.ToString());
  auto model = ModelFolder::open(folder);
  if (!model.ok()) throw std::runtime_error(model.status().ToString());
  return *std::move(model);
}

void write_ids(const std::filesystem::path& folder, int64_t count, int64_t vocab, uint64_t seed) {
  std::filesystem::create_directories(folder);
  std::mt19937_64 random(seed);
  std::string text;
  int64_t id = 0;
  for (int64_t i = 0; i < count; ++i) {
    id = (id + 1 + static_cast<int64_t>(random() % 5)) % vocab;
    text += std::to_string(id);
    text += i % 32 == 31 ? '\n' : ' ';
  }
  write_text(folder / "walk.ids", text);
}

}  // namespace qaas::testing
