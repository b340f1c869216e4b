#include "storage/checkpoint/model_config.h"

#include <algorithm>
#include <array>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/config_fields.h"
#include "storage/checkpoint/message_text.h"
#include "storage/checkpoint/model_families.h"
#include "storage/checkpoint/rope_fields.h"
#include "storage/checkpoint/strict_json.h"

namespace qaas {
namespace {

using nlohmann::json;

// Far above any model, and low enough that parameter counts stay below 2^62.
constexpr int64_t kMaxVocabulary = int64_t{1} << 24;
constexpr int64_t kMaxHidden = int64_t{1} << 18;
constexpr int64_t kMaxIntermediate = int64_t{1} << 20;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 4096;
constexpr int64_t kMaxPositions = int64_t{1} << 30;

/// The values of a field under which the decoder is a plain Llama; absent and null always are.
enum class Neutral { kNothing, kFalse, kZero, kOne, kSilu, kFullAttention };

struct ForeignField {
  const char* name;
  Neutral neutral;
};

// Fields by which checkpoints of known and unknown architectures change the forward pass.
constexpr std::array kForeignFields = {
    ForeignField{"hidden_act", Neutral::kSilu},
    ForeignField{"hidden_activation", Neutral::kSilu},
    ForeignField{"attention_bias", Neutral::kFalse},
    ForeignField{"mlp_bias", Neutral::kFalse},
    ForeignField{"attention_out_bias", Neutral::kFalse},
    ForeignField{"qkv_bias", Neutral::kFalse},
    ForeignField{"use_bias", Neutral::kFalse},
    ForeignField{"use_qkv_bias", Neutral::kFalse},
    ForeignField{"use_qk_norm", Neutral::kFalse},
    ForeignField{"qk_norm", Neutral::kFalse},
    ForeignField{"qk_layernorm", Neutral::kFalse},
    ForeignField{"sliding_window", Neutral::kNothing},
    ForeignField{"use_sliding_window", Neutral::kFalse},
    ForeignField{"attention_chunk_size", Neutral::kNothing},
    ForeignField{"layer_types", Neutral::kFullAttention},
    ForeignField{"no_rope_layers", Neutral::kNothing},
    ForeignField{"partial_rotary_factor", Neutral::kOne},
    ForeignField{"rotary_pct", Neutral::kOne},
    ForeignField{"rope_interleaved", Neutral::kFalse},
    ForeignField{"alibi", Neutral::kFalse},
    ForeignField{"clip_qkv", Neutral::kNothing},
    ForeignField{"attn_logit_softcapping", Neutral::kNothing},
    ForeignField{"final_logit_softcapping", Neutral::kNothing},
    ForeignField{"query_pre_attn_scalar", Neutral::kNothing},
    ForeignField{"attention_multiplier", Neutral::kNothing},
    ForeignField{"embedding_multiplier", Neutral::kOne},
    ForeignField{"residual_multiplier", Neutral::kOne},
    ForeignField{"logits_scaling", Neutral::kOne},
    ForeignField{"logit_scale", Neutral::kOne},
    ForeignField{"num_experts", Neutral::kZero},
    ForeignField{"num_local_experts", Neutral::kZero},
    ForeignField{"n_routed_experts", Neutral::kZero},
    ForeignField{"num_nextn_predict_layers", Neutral::kZero},
    ForeignField{"add_cross_attention", Neutral::kFalse},
    ForeignField{"is_encoder_decoder", Neutral::kFalse},
    ForeignField{"auto_map", Neutral::kNothing},
    ForeignField{"quantization_config", Neutral::kNothing},
    ForeignField{"compression_config", Neutral::kNothing},
};

bool is_neutral(const json& value, Neutral neutral) {
  if (value.is_null()) return true;
  switch (neutral) {
    case Neutral::kNothing:
      return false;
    case Neutral::kFalse:
      return value == false;
    case Neutral::kZero:
      return value == 0;
    case Neutral::kOne:
      return value == 1;
    case Neutral::kSilu:
      return value == "silu";
    case Neutral::kFullAttention:
      return value.is_array() && std::all_of(value.begin(), value.end(), [](const json& type) {
               return type == "full_attention";
             });
  }
  return false;
}

const char* neutral_text(Neutral neutral) {
  switch (neutral) {
    case Neutral::kNothing:
      return "the field absent or null";
    case Neutral::kFalse:
      return "false";
    case Neutral::kZero:
      return "0";
    case Neutral::kOne:
      return "1";
    case Neutral::kSilu:
      return "'silu'";
    case Neutral::kFullAttention:
      return "'full_attention' in every layer";
  }
  return "";
}

void refuse_foreign_fields(const json& object, ConfigFields& fields) {
  for (const ForeignField& field : kForeignFields) {
    const auto it = object.find(field.name);
    if (it != object.end() && !is_neutral(*it, field.neutral)) {
      fields.fail(field.name, absl::StrCat("is ", describe_json(*it),
                                           ", accepted: ", neutral_text(field.neutral)));
    }
  }
}

/// The family, or null after a failure recorded in `fields`.
const ModelFamily* find_family(const json& object, ConfigFields& fields) {
  const std::string model_type = fields.string("model_type");
  if (!fields.status().ok()) return nullptr;
  std::vector<std::string> accepted;
  for (const ModelFamily& family : model_families()) {
    accepted.push_back(family.model_type);
    if (family.model_type != model_type) continue;
    const auto architectures = object.find("architectures");
    if (architectures != object.end() && !architectures->is_null() &&
        *architectures != json::array({family.architecture})) {
      fields.fail("architectures", absl::StrCat("is ", printable(architectures->dump()),
                                                ", accepted: [\"", family.architecture, "\"]"));
      return nullptr;
    }
    return &family;
  }
  fields.fail("model_type", absl::StrCat("is '", printable(model_type),
                                         "', accepted: ", absl::StrJoin(accepted, ", ")));
  return nullptr;
}

void read_sizes(ConfigFields& fields, const ModelFamily& family, ModelConfig& config) {
  config.vocab_size = fields.integer("vocab_size", 1, kMaxVocabulary);
  config.hidden_size = fields.integer("hidden_size", 1, kMaxHidden);
  config.intermediate_size = fields.integer("intermediate_size", 1, kMaxIntermediate);
  config.num_hidden_layers = fields.integer("num_hidden_layers", 1, kMaxLayers);
  config.num_attention_heads = fields.integer("num_attention_heads", 1, kMaxHeads);
  config.num_key_value_heads =
      fields.integer("num_key_value_heads", 1, kMaxHeads,
                     family.default_key_value_heads > 0 ? family.default_key_value_heads
                                                        : config.num_attention_heads);
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    fields.fail("num_key_value_heads",
                absl::StrCat("is ", config.num_key_value_heads, ", which does not divide the ",
                             config.num_attention_heads, " of num_attention_heads"));
  }
  int64_t head_dim = family.default_head_dim;
  if (head_dim == 0) {
    head_dim = config.hidden_size / config.num_attention_heads;
    if (!fields.has("head_dim") && config.hidden_size % config.num_attention_heads != 0) {
      fields.fail("head_dim", absl::StrCat("is missing, and hidden_size ", config.hidden_size,
                                           " is not divisible by num_attention_heads ",
                                           config.num_attention_heads));
    }
  }
  config.head_dim = fields.integer("head_dim", 2, kMaxHeadDim, head_dim);
  if (config.head_dim % 2 != 0 || config.head_dim < 2 || config.head_dim > kMaxHeadDim) {
    fields.fail("head_dim", absl::StrCat("is ", config.head_dim, ", expected an even number up to ",
                                         kMaxHeadDim, " (rotary pairs)"));
  }
}

}  // namespace

absl::StatusOr<ModelConfig> parse_model_config(std::string_view text) {
  const auto document = parse_strict_json(text, {.max_depth = 32, .max_values = 1'000'000});
  if (!document.ok()) return document.status();
  if (!document->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a JSON object, got ", describe_json(*document)));
  }
  ConfigFields fields(*document, "");
  const ModelFamily* family = find_family(*document, fields);
  if (family == nullptr) return fields.status();

  ModelConfig config{.architecture = family->model_type};
  refuse_foreign_fields(*document, fields);
  read_sizes(fields, *family, config);
  config.max_position_embeddings = fields.integer("max_position_embeddings", 1, kMaxPositions,
                                                  family->default_max_position_embeddings);
  config.rms_norm_eps = fields.number("rms_norm_eps", 1e-12, 0.1, family->default_rms_norm_eps);
  config.tie_word_embeddings =
      fields.boolean("tie_word_embeddings", family->default_tie_word_embeddings);
  // A written null means "none"; only an absent field takes the default.
  const bool null_bos = document->contains("bos_token_id") && !fields.has("bos_token_id");
  config.bos_token_id = null_bos ? -1
                                 : fields.integer("bos_token_id", 0, config.vocab_size - 1,
                                                  family->default_bos_token_id);
  config.rope = read_rope(*document, family->default_rope_theta, fields);
  if (!fields.status().ok()) return fields.status();
  config.defaulted_fields = fields.defaulted();
  return config;
}

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config) {
  const std::vector<Projection2d> projections = decoder_projections(config);
  const size_t per_block = projections.size() / static_cast<size_t>(config.num_hidden_layers);
  std::vector<ExpectedTensor> tensors;
  tensors.push_back({"model.embed_tokens.weight", {config.vocab_size, config.hidden_size}});
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    tensors.push_back({prefix + "input_layernorm.weight", {config.hidden_size}});
    for (size_t i = 0; i < per_block; ++i) {
      const Projection2d& projection = projections[static_cast<size_t>(layer) * per_block + i];
      if (i == 4)
        tensors.push_back({prefix + "post_attention_layernorm.weight", {config.hidden_size}});
      tensors.push_back(
          {projection.name + ".weight", {projection.output_size, projection.input_size}});
    }
  }
  tensors.push_back({"model.norm.weight", {config.hidden_size}});
  if (!config.tie_word_embeddings) {
    tensors.push_back({"lm_head.weight", {config.vocab_size, config.hidden_size}});
  }
  return tensors;
}

std::vector<Projection2d> decoder_projections(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t queries = config.num_attention_heads * config.head_dim;
  const int64_t keys = config.num_key_value_heads * config.head_dim;
  std::vector<Projection2d> projections;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::string attention = absl::StrCat("model.layers.", layer, ".self_attn.");
    const std::string mlp = absl::StrCat("model.layers.", layer, ".mlp.");
    projections.push_back({attention + "q_proj", queries, hidden});
    projections.push_back({attention + "k_proj", keys, hidden});
    projections.push_back({attention + "v_proj", keys, hidden});
    projections.push_back({attention + "o_proj", hidden, queries});
    projections.push_back({mlp + "gate_proj", config.intermediate_size, hidden});
    projections.push_back({mlp + "up_proj", config.intermediate_size, hidden});
    projections.push_back({mlp + "down_proj", hidden, config.intermediate_size});
  }
  return projections;
}

int64_t parameter_count(const ModelConfig& config) {
  const int64_t matrices = config.tie_word_embeddings ? 1 : 2;  // embedding, head
  return non_embedding_parameter_count(config) + matrices * config.vocab_size * config.hidden_size;
}

int64_t non_embedding_parameter_count(const ModelConfig& config) {
  int64_t count = config.hidden_size * (2 * config.num_hidden_layers + 1);  // norms
  for (const Projection2d& projection : decoder_projections(config)) {
    count += projection.output_size * projection.input_size;
  }
  return count;
}

}  // namespace qaas
