#include "workers/engine/model/key_value_cache.h"

#include <cmath>

#include "workers/engine/model/decoder_block.h"

namespace qaas {
namespace {

/// Rotary embedding at one position, in float32. x: [rows, head_dim]; cosine, sine:
/// [head_dim / 2] → as x.
torch::Tensor rotate(const torch::Tensor& x, const torch::Tensor& cosine,
                     const torch::Tensor& sine) {
  const int64_t half = x.size(1) / 2;
  const torch::Tensor low = x.narrow(1, 0, half).to(torch::kFloat32);      // [rows, half]
  const torch::Tensor high = x.narrow(1, half, half).to(torch::kFloat32);  // [rows, half]
  return torch::cat({low * cosine - high * sine, high * cosine + low * sine}, 1)
      .to(x.scalar_type());
}

}  // namespace

KeyValueCache make_key_value_cache(const ModelConfig& config, int64_t batch, int64_t capacity,
                                   torch::ScalarType compute) {
  const auto empty = [&] {
    return torch::empty({batch * config.num_key_value_heads, capacity, config.head_dim}, compute);
  };
  return {.keys = empty(), .values = empty()};
}

torch::Tensor attend_next(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                          const RopeTable& rope, KeyValueCache& cache) {
  const int64_t rows = cache.keys.size(0), dim = cache.keys.size(2), position = cache.length;
  TORCH_CHECK(position < cache.keys.size(1), "the cache holds ", position,
              " positions and has no room for another");
  const torch::Tensor cosine = rope.cosine[position], sine = rope.sine[position];  // [dim / 2]
  cache.keys.select(1, position).copy_(rotate(k.reshape({rows, dim}), cosine, sine));
  cache.values.select(1, position).copy_(v.reshape({rows, dim}));
  ++cache.length;
  // Heads that share a key/value head are consecutive: rows of one product.
  const torch::Tensor queries =
      rotate(q.reshape({-1, dim}), cosine, sine).view({rows, -1, dim});  // [rows, shared, dim]
  const torch::Tensor scores =
      torch::bmm(queries, cache.keys.narrow(1, 0, cache.length).transpose(1, 2));
  const torch::Tensor weights =  // [rows, shared, positions]
      torch::softmax(scores.to(torch::kFloat32) / std::sqrt(static_cast<double>(dim)), -1)
          .to(q.scalar_type());
  return torch::bmm(weights, cache.values.narrow(1, 0, cache.length)).view(q.sizes());
}

}  // namespace qaas
