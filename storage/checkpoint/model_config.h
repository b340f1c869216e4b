#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

namespace qaas {

/// Rotary embedding as config.json describes it, both spellings ("rope_theta"/"rope_scaling" and
/// "rope_parameters") already merged.
struct RopeConfig {
  enum class Scaling { kNone, kLinear, kLlama3 };
  double theta = 10000.0;
  Scaling scaling = Scaling::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;                     ///< kLlama3 only
  double high_freq_factor = 4.0;                    ///< kLlama3 only
  int64_t original_max_position_embeddings = 8192;  ///< kLlama3 only
};

/// A Llama-family decoder, from config.json with the family's defaults filled in.
struct ModelConfig {
  std::string architecture;  ///< model_type, for example "llama"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  RopeConfig rope;
  int64_t bos_token_id = -1;  ///< -1: none
  /// Fields that config.json leaves out and that took the family's default, for the job's log.
  std::vector<std::string> defaulted_fields;
};

/// Parses the text of a config.json. kInvalidArgument names the field that is missing, of the wrong
/// type, out of range, or would change the mathematics in a way this service does not know; an
/// unknown family is refused with the list of those accepted. Sizes are bounded so that no product
/// below overflows.
absl::StatusOr<ModelConfig> parse_model_config(std::string_view json);

/// A tensor that a checkpoint of `config` must hold.
struct ExpectedTensor {
  std::string name;            ///< "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  ///< row-major
};

/// Every tensor of a full-precision checkpoint of `config`, in model order; a tied head is absent.
std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config);

/// A projection's weight matrix [output_size, input_size].
struct Projection2d {
  std::string name;  ///< module name, without ".weight"
  int64_t output_size = 0;
  int64_t input_size = 0;
};

/// The projections of all decoder blocks, in model order: q, k, v, o, gate, up, down per block.
std::vector<Projection2d> decoder_projections(const ModelConfig& config);

/// All parameters; a tied head counts once.
int64_t parameter_count(const ModelConfig& config);
/// All parameters but the embedding and the output head: N of the scaling laws.
int64_t non_embedding_parameter_count(const ModelConfig& config);

}  // namespace qaas
