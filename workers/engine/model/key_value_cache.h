#pragma once

#include <cstdint>

#include <torch/torch.h>

#include "storage/checkpoint/model_config.h"

namespace qaas {

struct RopeTable;

/// What the attention of one block remembers of the positions that a batch of sequences has passed,
/// so that the next position costs one token's products instead of the whole sequence's.
struct KeyValueCache {
  torch::Tensor keys;    ///< [batch * kv_heads, capacity, head_dim] in the compute type, rotated
  torch::Tensor values;  ///< the same shape and type
  int64_t length = 0;    ///< positions filled, from 0
};

/// An empty cache for `batch` sequences of up to `capacity` positions.
KeyValueCache make_key_value_cache(const ModelConfig& config, int64_t batch, int64_t capacity,
                                   torch::ScalarType compute);

/// Attention of the next position, which joins the cache: rotary embedding at that position, then
/// softmax(q·kᵀ / sqrt(head_dim))·v over all positions so far; what ops::causal_attention gives for
/// it. Not differentiable. The cache must have room.
/// q: [batch, heads * head_dim]; k, v: [batch, kv_heads * head_dim] → [batch, heads * head_dim].
torch::Tensor attend_next(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                          const RopeTable& rope, KeyValueCache& cache);

}  // namespace qaas
