#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include <torch/torch.h>

#include "workers/engine/model/decoder.h"

namespace qaas::testing {

/// An independent Llama in double precision, one number at a time: what the engine's forward is
/// judged by. Shares nothing with it but the checkpoint.
class PlainLlama {
 public:
  PlainLlama(const ModelConfig& config, const TensorSource& tensor)
      : config_(config), tensor_(tensor) {}

  /// Log-probabilities of the next token after each of `ids`: [seq, vocab] float64.
  torch::Tensor log_probabilities(const std::vector<int64_t>& ids) const {
    const Matrix embedding = matrix("model.embed_tokens.weight");
    Rows x;
    for (const int64_t id : ids) x.push_back(embedding[size_t(id)]);
    for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
      const std::string prefix = "model.layers." + std::to_string(i) + ".";
      add(x, attention(norm(x, prefix + "input_layernorm.weight"), prefix + "self_attn."));
      add(x, mlp(norm(x, prefix + "post_attention_layernorm.weight"), prefix + "mlp."));
    }
    const Rows logits =
        times(norm(x, "model.norm.weight"),
              config_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
    torch::Tensor out = torch::empty({int64_t(ids.size()), config_.vocab_size}, torch::kFloat64);
    for (size_t t = 0; t < logits.size(); ++t) {
      double sum = 0;
      for (const double logit : logits[t]) sum += std::exp(logit);
      for (size_t v = 0; v < logits[t].size(); ++v) {
        out.data_ptr<double>()[t * logits[t].size() + v] = logits[t][v] - std::log(sum);
      }
    }
    return out;
  }

 private:
  using Row = std::vector<double>;
  using Rows = std::vector<Row>;
  using Matrix = Rows;

  Matrix matrix(const std::string& name) const {
    const torch::Tensor values = to_float_tensor(tensor_(name));
    const int64_t cols = values.size(-1);
    Matrix result;
    for (int64_t r = 0; r < values.numel() / cols; ++r) {
      const float* row = values.data_ptr<float>() + r * cols;
      result.emplace_back(row, row + cols);
    }
    return result;
  }
  static void add(Rows& x, const Rows& y) {
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t i = 0; i < x[t].size(); ++i) x[t][i] += y[t][i];
    }
  }
  Rows times(const Rows& x, const std::string& name) const {
    const Matrix weight = matrix(name);
    Rows y(x.size(), Row(weight.size()));
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t o = 0; o < weight.size(); ++o) {
        for (size_t i = 0; i < x[t].size(); ++i) y[t][o] += x[t][i] * weight[o][i];
      }
    }
    return y;
  }
  Rows norm(const Rows& x, const std::string& name) const {
    const Row weight = matrix(name)[0];
    Rows y = x;
    for (Row& row : y) {
      double square = 0;
      for (const double value : row) square += value * value;
      const double inverse =
          1.0 / std::sqrt(square / static_cast<double>(row.size()) + config_.rms_norm_eps);
      for (size_t i = 0; i < row.size(); ++i) row[i] *= inverse * weight[i];
    }
    return y;
  }
  /// Rotates head `head` of a row at position `t`: pairs (i, i + dim / 2).
  void rotate(Row& row, size_t t, size_t head) const {
    const auto dim = static_cast<size_t>(config_.head_dim), half = dim / 2;
    for (size_t i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(t) * std::pow(config_.rope.theta, -2.0 * double(i) / double(dim));
      double &low = row[head * dim + i], &high = row[head * dim + i + half];
      const double rotated = low * std::cos(angle) - high * std::sin(angle);
      high = high * std::cos(angle) + low * std::sin(angle);
      low = rotated;
    }
  }
  Rows attention(const Rows& x, const std::string& prefix) const {
    Rows q = times(x, prefix + "q_proj.weight"), k = times(x, prefix + "k_proj.weight");
    const Rows v = times(x, prefix + "v_proj.weight");
    const auto heads = static_cast<size_t>(config_.num_attention_heads);
    const auto kv_heads = static_cast<size_t>(config_.num_key_value_heads);
    const auto dim = static_cast<size_t>(config_.head_dim);
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t h = 0; h < heads; ++h) rotate(q[t], t, h);
      for (size_t h = 0; h < kv_heads; ++h) rotate(k[t], t, h);
    }
    Rows mixed(x.size(), Row(heads * dim));
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t h = 0; h < heads; ++h) {
        const size_t shared = h / (heads / kv_heads);
        Row weight(t + 1);
        double sum = 0;
        for (size_t u = 0; u <= t; ++u) {
          double score = 0;
          for (size_t i = 0; i < dim; ++i) score += q[t][h * dim + i] * k[u][shared * dim + i];
          weight[u] = std::exp(score / std::sqrt(static_cast<double>(dim)));
          sum += weight[u];
        }
        for (size_t u = 0; u <= t; ++u) {
          for (size_t i = 0; i < dim; ++i) {
            mixed[t][h * dim + i] += weight[u] / sum * v[u][shared * dim + i];
          }
        }
      }
    }
    return times(mixed, prefix + "o_proj.weight");
  }
  Rows mlp(const Rows& x, const std::string& prefix) const {
    Rows gate = times(x, prefix + "gate_proj.weight");
    const Rows up = times(x, prefix + "up_proj.weight");
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t i = 0; i < gate[t].size(); ++i) {
        gate[t][i] *= up[t][i] / (1.0 + std::exp(-gate[t][i]));
      }
    }
    return times(gate, prefix + "down_proj.weight");
  }

  const ModelConfig& config_;
  const TensorSource& tensor_;
};

}  // namespace qaas::testing
