#include "tests/engine/exporters/tiny_source.h"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "storage/checkpoint/safetensors.h"
#include "workers/engine/exporters/float16.h"
#include "workers/engine/quant/bit_packing.h"

namespace qaas::testing {
namespace {

constexpr char kConfig[] = R"({
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "hidden_size": 128,
  "intermediate_size": 256,
  "num_hidden_layers": 1,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "hidden_act": "silu",
  "vocab_size": 64,
  "max_position_embeddings": 64,
  "rms_norm_eps": 1e-05,
  "rope_theta": 10000.0,
  "tie_word_embeddings": true,
  "torch_dtype": "bfloat16",
  "initializer_range": 0.02
})";

}  // namespace

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

ModelFolder write_tiny_source(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  write_text(folder / "config.json", kConfig);
  write_text(folder / "tokenizer.json", "{\"not\": \"read here\"}\n");
  write_text(folder / "generation_config.json", "{\"eos_token_id\": [1, 2]}");
  const auto config = parse_model_config(kConfig);
  if (!config.ok()) throw std::runtime_error(config.status().ToString());
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 0.05f);
  std::vector<std::vector<std::byte>> bytes;
  std::vector<TensorToWrite> tensors;
  for (const ExpectedTensor& tensor : expected_tensors(*config)) {
    int64_t count = 1;
    for (const int64_t dim : tensor.shape) count *= dim;
    std::vector<float> values(count);
    for (float& x : values) x = normal(random);
    bytes.push_back(encode_floats(values, Dtype::kBf16).value());
    tensors.push_back({tensor.name, Dtype::kBf16, tensor.shape, bytes.back()});
  }
  const absl::Status written = write_safetensors(folder / "model.safetensors", tensors);
  if (!written.ok()) throw std::runtime_error(written.ToString());
  auto source = ModelFolder::open(folder);
  if (!source.ok()) throw std::runtime_error(source.status().ToString());
  return *std::move(source);
}

QuantizedWeight random_weight(const Projection2d& projection, const GptqGrid& grid,
                              std::mt19937& random) {
  const int64_t group_size = grid.group_size == -1 ? projection.input_size : grid.group_size;
  QuantizedWeight weight = {.rows = projection.output_size,
                            .cols = projection.input_size,
                            .bits = grid.bits,
                            .group_size = group_size,
                            .symmetric = grid.symmetric};
  const uint32_t codes = 1u << grid.bits;
  std::vector<uint8_t> values(weight.rows * weight.cols);
  for (uint8_t& code : values) code = static_cast<uint8_t>(random() % codes);
  weight.packed = pack_rows(values, weight.rows, weight.cols, weight.bits);
  std::uniform_real_distribution<float> scales(1e-4f, 0.2f);
  for (int64_t i = 0; i < weight.rows * (weight.cols / group_size); ++i) {
    weight.zero_points.push_back(
        static_cast<uint8_t>(grid.symmetric ? codes / 2 : random() % codes));
    weight.scales.push_back(from_float16(to_float16(scales(random))));
  }
  return weight;
}

}  // namespace qaas::testing
