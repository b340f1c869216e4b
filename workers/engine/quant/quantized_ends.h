#pragma once

#include <optional>

#include "workers/engine/model/decoder.h"
#include "workers/engine/quant/affine.h"
#include "workers/engine/quant/quantized_weight.h"

namespace qaas {

/// What of a model's ends is quantized; nothing by default.
struct EndsQuantization {
  std::optional<AffineGrid> head;  ///< group size resolved; packed like any projection
  int embedding_bits = 0;          ///< 8: see quantize_embedding; 0: as in the file
};

/// head [vocab, dim] of any float type on min-max qparams, each weight to the nearest code. Rows
/// are widened a few at a time, so that memory grows by the result only.
QuantizedWeight quantize_head(const torch::Tensor& head, const AffineGrid& grid);

/// embedding [vocab, dim] with each row on a symmetric 8-bit grid: round(x / s) · s, s = max|row| /
/// 127, half to even. The values stay in the tensor's type, rounded to it.
torch::Tensor quantize_embedding(const torch::Tensor& embedding);

/// The ends of the quantized model. A quantized head is made from the original head and ends a
/// tie; a tied head that is not quantized keeps sharing the embedding, on whatever grid that is.
ModelEnds quantize_ends(const ModelEnds& ends, const EndsQuantization& what);

}  // namespace qaas
