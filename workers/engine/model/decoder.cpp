#include "workers/engine/model/decoder.h"

#include <cstring>

#include "workers/engine/model/ops.h"

namespace qaas {
namespace {

torch::ScalarType scalar_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF16:
      return torch::kFloat16;
    case Dtype::kBf16:
      return torch::kBFloat16;
    default:
      TORCH_CHECK(dtype == Dtype::kF32, "model tensors are F32, F16 or BF16, got ",
                  std::string(dtype_name(dtype)));
      return torch::kFloat32;
  }
}

/// A tensor over the mapped bytes, or over a copy where they are not aligned for their type.
torch::Tensor mapped_tensor(const TensorView& view) {
  const torch::ScalarType type = scalar_type(view.dtype);
  auto* data = const_cast<std::byte*>(view.bytes.data());
  if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(dtype_size(view.dtype)) == 0) {
    return torch::from_blob(data, view.shape, type);
  }
  torch::Tensor copy = torch::empty(view.shape, type);
  std::memcpy(copy.data_ptr(), data, view.bytes.size());
  return copy;
}

}  // namespace

torch::Tensor to_float_tensor(const TensorView& view) {
  return mapped_tensor(view).to(torch::kFloat32, /*non_blocking=*/false, /*copy=*/true);
}

torch::Tensor head_weight(const ModelEnds& ends, torch::ScalarType type) {
  return (ends.quantized_head ? ends.quantized_head->effective_weight() : ends.head).to(type);
}

torch::Tensor head_rows(const ModelEnds& ends, int64_t first, int64_t count) {
  if (ends.quantized_head) return ends.quantized_head->effective_rows(first, count);
  return ends.head.narrow(0, first, count).to(torch::kFloat32);
}

ModelEnds load_ends(const ModelConfig& config, const TensorSource& tensor) {
  ModelEnds ends;
  ends.embedding = mapped_tensor(tensor("model.embed_tokens.weight"));
  ends.final_norm = to_float_tensor(tensor("model.norm.weight"));
  ends.head = config.tie_word_embeddings ? ends.embedding : mapped_tensor(tensor("lm_head.weight"));
  ends.epsilon = config.rms_norm_eps;
  return ends;
}

std::string block_prefix(int64_t index) { return "model.layers." + std::to_string(index) + "."; }

absl::StatusOr<DecoderBlock> load_block(const ModelConfig& config, const TensorSource& tensor,
                                        int64_t index) {
  const std::string prefix = block_prefix(index);
  std::string not_finite;
  const auto widened = [&](const std::string& name) {
    torch::Tensor values = to_float_tensor(tensor(prefix + name));
    if (!torch::isfinite(values).all().item<bool>()) not_finite = prefix + name;
    return values;
  };
  const auto projection = [&](const std::string& name) -> std::shared_ptr<Projection> {
    return std::make_shared<DenseProjection>(widened(name + ".weight"));
  };
  DecoderBlock block(config, BlockParts{.projection = projection, .norm = widened});
  if (!not_finite.empty()) {
    return absl::InvalidArgumentError(
        "tensor '" + not_finite + "' holds values that are NaN or infinite; expected finite ones");
  }
  return block;
}

torch::Tensor embed(const ModelEnds& ends, const torch::Tensor& ids) {
  return ends.embedding.index_select(0, ids.flatten())
      .to(torch::kFloat32)
      .view({ids.size(0), ids.size(1), ends.embedding.size(1)});
}

void embed_into(const ModelEnds& ends, const torch::Tensor& ids, const torch::Tensor& stream) {
  for (int64_t window = 0; window < ids.size(0); ++window) {
    stream[window].copy_(ends.embedding.index_select(0, ids[window]));
  }
}

torch::Tensor final_hidden(const ModelEnds& ends, const torch::Tensor& residual) {
  return ops::rms_norm(residual, ends.final_norm, ends.epsilon, torch::kFloat32);
}

}  // namespace qaas
