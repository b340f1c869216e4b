#include "workers/engine/quant/quantized_ends.h"

#include <algorithm>

#include "workers/engine/quant/fake_quant_projection.h"
#include "workers/engine/quant/packed_projection.h"

namespace qaas {
namespace {

constexpr int64_t kRowsAtATime = 4096;
constexpr double kLargestLevel = 127;

/// body(first, rows as float32 [n, dim]) for a few rows of `matrix` at a time.
template <class Body>
void for_rows(const torch::Tensor& matrix, const Body& body) {
  const torch::NoGradGuard no_grad;
  for (int64_t first = 0; first < matrix.size(0); first += kRowsAtATime) {
    const int64_t last = std::min(first + kRowsAtATime, matrix.size(0));
    body(first, matrix.slice(0, first, last).to(torch::kFloat32).contiguous());
  }
}

template <class T>
void append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

QuantizedWeight quantize_head(const torch::Tensor& head, const AffineGrid& grid) {
  QuantizedWeight result{.rows = head.size(0),
                         .cols = head.size(1),
                         .bits = grid.bits,
                         .group_size = grid.group_size,
                         .symmetric = grid.symmetric};
  for_rows(head, [&](int64_t, const torch::Tensor& rows) {
    const QuantizedWeight part =
        FakeQuantProjection(rows, min_max_qparams(rows, grid), grid).to_quantized_weight();
    append(result.packed, part.packed);
    append(result.zero_points, part.zero_points);
    append(result.scales, part.scales);
  });
  return result;
}

torch::Tensor quantize_embedding(const torch::Tensor& embedding) {
  torch::Tensor result = torch::empty(embedding.sizes(), embedding.options());  // [vocab, dim]
  for_rows(embedding, [&](int64_t first, const torch::Tensor& rows) {
    const torch::Tensor step = rows.abs().amax(1, /*keepdim=*/true) / kLargestLevel;  // [n, 1]
    const torch::Tensor scale = torch::where(step == 0, torch::ones_like(step), step);
    result.narrow(0, first, rows.size(0)).copy_(torch::round(rows / scale) * scale);
  });
  return result;
}

ModelEnds quantize_ends(const ModelEnds& ends, const EndsQuantization& what) {
  TORCH_CHECK(what.embedding_bits == 0 || what.embedding_bits == 8,
              "embedding bits are 8 or 0, got ", what.embedding_bits);
  ModelEnds result = ends;
  if (what.embedding_bits == 8) {
    result.embedding = quantize_embedding(ends.embedding);
    if (ends.head.is_same(ends.embedding)) result.head = result.embedding;
  }
  if (what.head.has_value()) {
    result.quantized_head =
        std::make_shared<PackedProjection>(quantize_head(ends.head, *what.head));
    result.head.reset();
  }
  return result;
}

}  // namespace qaas
