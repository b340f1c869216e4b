#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <absl/status/statusor.h>
#include <torch/torch.h>

#include "storage/checkpoint/model_config.h"
#include "storage/checkpoint/safetensors.h"
#include "workers/engine/model/decoder_block.h"

namespace qaas {

/// The tensor as float32, copied out of the mapped file. [shape of the view]
torch::Tensor to_float_tensor(const TensorView& view);

/// What stands before and after the decoder blocks. Embedding and head stay in the file's type and
/// in the mapped file; rows are widened when used.
struct ModelEnds {
  torch::Tensor embedding;   ///< [vocab, dim] F32, F16 or BF16, backed by the folder's mapping
  torch::Tensor final_norm;  ///< [dim] float32
  torch::Tensor head;        ///< [vocab, dim] as embedding; the same tensor when tied
  std::shared_ptr<Projection> quantized_head;  ///< in place of `head`, which is undefined then
  double epsilon = 1e-6;                       ///< of the final norm
};

/// What the head multiplies with, [vocab, dim] of `type`.
torch::Tensor head_weight(const ModelEnds& ends, torch::ScalarType type);

/// Rows first .. first + count of it, [count, dim] float32.
torch::Tensor head_rows(const ModelEnds& ends, int64_t first, int64_t count);

/// A checkpoint's tensor by its full name; the bytes outlive what is made from them.
using TensorSource = std::function<const TensorView&(const std::string& name)>;

ModelEnds load_ends(const ModelConfig& config, const TensorSource& tensor);

/// Block `index` of a full-precision checkpoint with dense float32 projections. kInvalidArgument,
/// naming the tensor, if a weight is NaN or infinite.
absl::StatusOr<DecoderBlock> load_block(const ModelConfig& config, const TensorSource& tensor,
                                        int64_t index);

/// "model.layers.<index>."
std::string block_prefix(int64_t index);

/// Residual stream at the first block: rows of the embedding, float32.
/// ids: [windows, seq] int64 → [windows, seq, dim].
torch::Tensor embed(const ModelEnds& ends, const torch::Tensor& ids);

/// The same written to `stream`, [windows, seq, dim] float32, a window at a time.
void embed_into(const ModelEnds& ends, const torch::Tensor& ids, const torch::Tensor& stream);

/// Final norm: [tokens, dim] float32 residual stream → same.
torch::Tensor final_hidden(const ModelEnds& ends, const torch::Tensor& residual);

}  // namespace qaas
