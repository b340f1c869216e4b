#include "storage/checkpoint/model_families.h"

#include <array>

namespace qaas {
namespace {

constexpr std::array<ModelFamily, 1> kFamilies = {{{
    .model_type = "llama",
    .architecture = "LlamaForCausalLM",
    .default_max_position_embeddings = 2048,
    .default_rms_norm_eps = 1e-6,
    .default_rope_theta = 10000.0,
    .default_tie_word_embeddings = false,
    .default_bos_token_id = 1,
    .default_key_value_heads = 0,
    .default_head_dim = 0,
}}};

}  // namespace

std::span<const ModelFamily> model_families() { return kFamilies; }

}  // namespace qaas
