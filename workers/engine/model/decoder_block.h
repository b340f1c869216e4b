#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "storage/checkpoint/model_config.h"
#include "workers/engine/model/key_value_cache.h"
#include "workers/engine/model/projection.h"

namespace qaas {

/// Rotary tables for positions 0 .. length-1 (config's RoPE scaling applied), float32
/// [length, head_dim / 2]. Frequencies are computed in float32, as the original models do.
struct RopeTable {
  torch::Tensor cosine;
  torch::Tensor sine;
};
RopeTable make_rope_table(const ModelConfig& config, int64_t length);

/// Called for each projection of a block with its name inside the block ("self_attn.q_proj"); the
/// result takes its place.
using ProjectionRewrite = std::function<std::shared_ptr<Projection>(
    const std::string& name, const std::shared_ptr<Projection>& current)>;

using NamedProjection = std::pair<std::string, std::shared_ptr<Projection>>;

/// Where a new block gets its parts from, by their names inside the block.
struct BlockParts {
  /// "self_attn.q_proj" → the projection.
  std::function<std::shared_ptr<Projection>(const std::string& name)> projection;
  /// "input_layernorm.weight" → float32 [dim].
  std::function<torch::Tensor(const std::string& name)> norm;
};

/// x · rsqrt(mean(x²) + epsilon) · weight.
class RmsNormImpl : public torch::nn::Module {
 public:
  RmsNormImpl(torch::Tensor weight, double epsilon);
  /// x: [tokens, dim] float32 → [tokens, dim] of `compute`.
  torch::Tensor forward(const torch::Tensor& x, torch::ScalarType compute);
  const torch::Tensor& weight() const { return weight_; }

 private:
  torch::Tensor weight_;  // [dim] float32
  double epsilon_;
};
TORCH_MODULE(RmsNorm);

/// Causal self-attention with rotary positions and grouped key/value heads.
class AttentionImpl : public torch::nn::Module {
 public:
  AttentionImpl(const ModelConfig& config, const BlockParts& parts);
  /// x: [batch * seq, dim] in the compute type → same.
  torch::Tensor forward(const torch::Tensor& x, int64_t batch, const RopeTable& rope);
  /// The next position alone. x: [batch, dim] in the compute type → same. Not differentiable.
  torch::Tensor decode(const torch::Tensor& x, const RopeTable& rope, KeyValueCache& cache);
  void rewrite_projections(const ProjectionRewrite& rewrite);
  void append_projections(std::vector<NamedProjection>& out) const;

 private:
  int64_t heads_, kv_heads_;
  std::shared_ptr<Projection> q_proj_, k_proj_, v_proj_, o_proj_;
};
TORCH_MODULE(Attention);

/// SwiGLU feed-forward: down(silu(gate(x)) · up(x)).
class MlpImpl : public torch::nn::Module {
 public:
  explicit MlpImpl(const BlockParts& parts);
  /// x: [tokens, dim] in the compute type → same.
  torch::Tensor forward(const torch::Tensor& x);
  void rewrite_projections(const ProjectionRewrite& rewrite);
  void append_projections(std::vector<NamedProjection>& out) const;

 private:
  std::shared_ptr<Projection> gate_proj_, up_proj_, down_proj_;
};
TORCH_MODULE(Mlp);

/// One pre-norm decoder block: x + attention(norm(x)), then x + mlp(norm(x)). Registered names are
/// the checkpoint's ("self_attn.q_proj.weight", "input_layernorm.weight", ...).
class DecoderBlockImpl : public torch::nn::Module {
 public:
  DecoderBlockImpl(const ModelConfig& config, const BlockParts& parts);

  /// x: [batch, seq, dim] float32 residual stream → same. Products run in `compute`.
  torch::Tensor forward(const torch::Tensor& x, const RopeTable& rope, torch::ScalarType compute);

  /// What forward gives for the position behind those in `cache`, which it joins. x: [batch, dim]
  /// float32 residual stream of that position → same. Not differentiable.
  torch::Tensor decode(const torch::Tensor& x, const RopeTable& rope, torch::ScalarType compute,
                       KeyValueCache& cache);

  /// Replaces every projection, in model order (q, k, v, o, gate, up, down), keeping names.
  void rewrite_projections(const ProjectionRewrite& rewrite);

  /// The projections with their names inside the block, in model order.
  std::vector<NamedProjection> projections() const;

  /// The norm weights, [dim] float32, by name inside the block ("input_layernorm.weight").
  std::vector<std::pair<std::string, torch::Tensor>> norms() const;

 private:
  RmsNorm input_norm_{nullptr}, post_attention_norm_{nullptr};
  Attention attention_{nullptr};
  Mlp mlp_{nullptr};
};
TORCH_MODULE(DecoderBlock);

}  // namespace qaas
