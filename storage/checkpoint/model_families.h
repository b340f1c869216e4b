#pragma once

#include <cstdint>
#include <span>

/// The decoder families this service knows, in one table: a new family is a new row, plus whatever
/// its mathematics needs in ModelConfig and in the engine's model.
namespace qaas {

struct ModelFamily {
  const char* model_type;    ///< config.json "model_type"
  const char* architecture;  ///< the one accepted entry of config.json "architectures"
  /// What the family's config class fills in when a field is absent.
  int64_t default_max_position_embeddings;
  double default_rms_norm_eps;
  double default_rope_theta;
  bool default_tie_word_embeddings;
  int64_t default_bos_token_id;
  int64_t default_key_value_heads;  ///< 0: as many as attention heads
  int64_t default_head_dim;         ///< 0: hidden_size / num_attention_heads
};

std::span<const ModelFamily> model_families();

}  // namespace qaas
