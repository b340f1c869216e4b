#include "workers/engine/model/decoder_block.h"

#include <cmath>
#include <numbers>

#include "workers/engine/model/ops.h"

namespace qaas {
namespace {

/// Llama 3 frequency scaling (formats sheet 6.3): long wavelengths are stretched by `factor`,
/// short ones kept, the band between them interpolated.
torch::Tensor llama3_frequencies(const torch::Tensor& frequency, const RopeConfig& rope) {
  const double original = static_cast<double>(rope.original_max_position_embeddings);
  const torch::Tensor wavelength = 2.0 * std::numbers::pi / frequency;
  const torch::Tensor blend = (original / wavelength - rope.low_freq_factor) /
                              (rope.high_freq_factor - rope.low_freq_factor);
  const torch::Tensor stretched = frequency / rope.factor;
  const torch::Tensor between = (1.0 - blend) * stretched + blend * frequency;
  return torch::where(
      wavelength > original / rope.low_freq_factor, stretched,
      torch::where(wavelength < original / rope.high_freq_factor, frequency, between));
}

std::shared_ptr<Projection> child(torch::nn::Module& owner, const std::string& prefix,
                                  const std::string& name, const BlockParts& parts) {
  return owner.register_module(name, parts.projection(prefix + "." + name));
}

void rewrite_child(torch::nn::Module& owner, const std::string& prefix, const std::string& name,
                   const ProjectionRewrite& rewrite, std::shared_ptr<Projection>& member) {
  member = rewrite(prefix + "." + name, member);
  owner.replace_module(name, member);
}

}  // namespace

RopeTable make_rope_table(const ModelConfig& config, int64_t length) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor exponent =
      torch::arange(0, config.head_dim, 2, torch::kFloat32) / static_cast<double>(config.head_dim);
  torch::Tensor frequency = 1.0 / torch::pow(config.rope.theta, exponent);  // [head_dim / 2]
  switch (config.rope.scaling) {
    case RopeConfig::Scaling::kNone:
      break;
    case RopeConfig::Scaling::kLinear:
      frequency = frequency / config.rope.factor;
      break;
    case RopeConfig::Scaling::kLlama3:
      frequency = llama3_frequencies(frequency, config.rope);
      break;
  }
  const torch::Tensor angle = torch::outer(torch::arange(length, torch::kFloat32), frequency);
  return {torch::cos(angle).contiguous(), torch::sin(angle).contiguous()};
}

RmsNormImpl::RmsNormImpl(torch::Tensor weight, double epsilon)
    : weight_(register_parameter("weight", std::move(weight), /*requires_grad=*/false)),
      epsilon_(epsilon) {}

torch::Tensor RmsNormImpl::forward(const torch::Tensor& x, torch::ScalarType compute) {
  return ops::rms_norm(x, weight_, epsilon_, compute);
}

AttentionImpl::AttentionImpl(const ModelConfig& config, const BlockParts& parts)
    : heads_(config.num_attention_heads),
      kv_heads_(config.num_key_value_heads),
      q_proj_(child(*this, "self_attn", "q_proj", parts)),
      k_proj_(child(*this, "self_attn", "k_proj", parts)),
      v_proj_(child(*this, "self_attn", "v_proj", parts)),
      o_proj_(child(*this, "self_attn", "o_proj", parts)) {}

torch::Tensor AttentionImpl::forward(const torch::Tensor& x, int64_t batch, const RopeTable& rope) {
  const int64_t seq = x.size(0) / batch;
  const torch::Tensor cosine = rope.cosine.narrow(0, 0, seq);  // [seq, head_dim / 2]
  const torch::Tensor sine = rope.sine.narrow(0, 0, seq);      // [seq, head_dim / 2]
  const torch::Tensor mixed = ops::causal_attention(
      q_proj_->forward(x), k_proj_->forward(x), v_proj_->forward(x), cosine, sine,
      {.batch = batch, .heads = heads_, .kv_heads = kv_heads_});  // [batch * seq, heads * head_dim]
  return o_proj_->forward(mixed);
}

torch::Tensor AttentionImpl::decode(const torch::Tensor& x, const RopeTable& rope,
                                    KeyValueCache& cache) {
  return o_proj_->forward(
      attend_next(q_proj_->forward(x), k_proj_->forward(x), v_proj_->forward(x), rope, cache));
}

void AttentionImpl::rewrite_projections(const ProjectionRewrite& rewrite) {
  rewrite_child(*this, "self_attn", "q_proj", rewrite, q_proj_);
  rewrite_child(*this, "self_attn", "k_proj", rewrite, k_proj_);
  rewrite_child(*this, "self_attn", "v_proj", rewrite, v_proj_);
  rewrite_child(*this, "self_attn", "o_proj", rewrite, o_proj_);
}

void AttentionImpl::append_projections(std::vector<NamedProjection>& out) const {
  out.insert(out.end(), {{"self_attn.q_proj", q_proj_},
                         {"self_attn.k_proj", k_proj_},
                         {"self_attn.v_proj", v_proj_},
                         {"self_attn.o_proj", o_proj_}});
}

MlpImpl::MlpImpl(const BlockParts& parts)
    : gate_proj_(child(*this, "mlp", "gate_proj", parts)),
      up_proj_(child(*this, "mlp", "up_proj", parts)),
      down_proj_(child(*this, "mlp", "down_proj", parts)) {}

torch::Tensor MlpImpl::forward(const torch::Tensor& x) {
  return down_proj_->forward(ops::swiglu(gate_proj_->forward(x), up_proj_->forward(x)));
}

void MlpImpl::rewrite_projections(const ProjectionRewrite& rewrite) {
  rewrite_child(*this, "mlp", "gate_proj", rewrite, gate_proj_);
  rewrite_child(*this, "mlp", "up_proj", rewrite, up_proj_);
  rewrite_child(*this, "mlp", "down_proj", rewrite, down_proj_);
}

void MlpImpl::append_projections(std::vector<NamedProjection>& out) const {
  out.insert(
      out.end(),
      {{"mlp.gate_proj", gate_proj_}, {"mlp.up_proj", up_proj_}, {"mlp.down_proj", down_proj_}});
}

DecoderBlockImpl::DecoderBlockImpl(const ModelConfig& config, const BlockParts& parts)
    : input_norm_(register_module(
          "input_layernorm", RmsNorm(parts.norm("input_layernorm.weight"), config.rms_norm_eps))),
      post_attention_norm_(register_module(
          "post_attention_layernorm",
          RmsNorm(parts.norm("post_attention_layernorm.weight"), config.rms_norm_eps))),
      attention_(register_module("self_attn", Attention(config, parts))),
      mlp_(register_module("mlp", Mlp(parts))) {}

torch::Tensor DecoderBlockImpl::forward(const torch::Tensor& x, const RopeTable& rope,
                                        torch::ScalarType compute) {
  const int64_t batch = x.size(0), dim = x.size(2);
  torch::Tensor residual = x.reshape({-1, dim});  // [batch * seq, dim] float32
  residual = residual + attention_->forward(input_norm_->forward(residual, compute), batch, rope);
  residual = residual + mlp_->forward(post_attention_norm_->forward(residual, compute));
  return residual.view(x.sizes());
}

torch::Tensor DecoderBlockImpl::decode(const torch::Tensor& x, const RopeTable& rope,
                                       torch::ScalarType compute, KeyValueCache& cache) {
  const torch::Tensor residual =
      x + attention_->decode(input_norm_->forward(x, compute), rope, cache);
  return residual + mlp_->forward(post_attention_norm_->forward(residual, compute));
}

void DecoderBlockImpl::rewrite_projections(const ProjectionRewrite& rewrite) {
  attention_->rewrite_projections(rewrite);
  mlp_->rewrite_projections(rewrite);
}

std::vector<NamedProjection> DecoderBlockImpl::projections() const {
  std::vector<NamedProjection> all;
  attention_->append_projections(all);
  mlp_->append_projections(all);
  return all;
}

std::vector<std::pair<std::string, torch::Tensor>> DecoderBlockImpl::norms() const {
  return {{"input_layernorm.weight", input_norm_->weight()},
          {"post_attention_layernorm.weight", post_attention_norm_->weight()}};
}

}  // namespace qaas
