#pragma once

#include "tests/support/tiny_llama.h"
#include "workers/engine/eval/block_pass.h"

namespace qaas::testing {

constexpr int64_t kLongest = 64;  // tokens of a sequence

/// A model with its parts, and its log-probabilities computed in one go.
struct ScoredLlama {
  ModelFolder folder;
  ModelEnds ends;

  explicit ScoredLlama(ModelFolder opened) : folder(std::move(opened)) {
    ends = load_ends(folder.config(), source());
  }
  TensorSource source() const {
    return [this](const std::string& name) -> const TensorView& { return folder.tensor(name); };
  }
  BlockSource blocks() const {
    return [this](int64_t index) { return load_block(folder.config(), source(), index); };
  }
  int64_t block_count() const { return folder.config().num_hidden_layers; }
  RopeTable rope() const { return make_rope_table(folder.config(), kLongest); }
  BlockwiseModel parts() const {
    return {.ends = ends, .block_count = block_count(), .block = blocks(), .rope = rope()};
  }

  /// [windows, seq - 1, vocab] float64
  torch::Tensor log_probabilities(const torch::Tensor& ids) const {
    const torch::NoGradGuard no_grad;
    torch::Tensor stream = embed(ends, ids);
    for (int64_t i = 0; i < block_count(); ++i) {
      DecoderBlock block = blocks()(i).value();
      stream = block->forward(stream, rope(), torch::kFloat32);
    }
    const torch::Tensor hidden = final_hidden(ends, stream.view({-1, stream.size(2)}));
    return torch::log_softmax(torch::mm(hidden, ends.head.to(torch::kFloat32).t()), -1)
        .view({ids.size(0), ids.size(1), -1})
        .narrow(1, 0, ids.size(1) - 1)
        .to(torch::kFloat64);
  }
};

}  // namespace qaas::testing
