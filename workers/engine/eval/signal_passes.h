#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <stop_token>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <torch/torch.h>

#include "workers/engine/eval/block_pass.h"
#include "workers/engine/model/activation_cache.h"
#include "workers/engine/model/decoder.h"
#include "workers/engine/model/language_head.h"

namespace qaas {

/// Sees a projection at work: its name inside the block, its input [tokens, in], and its output
/// [tokens, out], in a backward pass with the gradient of the mean loss with respect to it (same
/// shape; undefined in a forward pass). Called under no_grad.
using ProjectionObserver =
    std::function<void(const std::string& name, const torch::Tensor& input,
                       const torch::Tensor& output, const torch::Tensor& output_gradient)>;

/// Called with each block before it runs; may prepare what its observer needs. An empty observer
/// watches nothing.
using BlockVisitor =
    std::function<absl::StatusOr<ProjectionObserver>(int64_t index, const DecoderBlock& block)>;

/// Forward and backward passes of whole models over the same windows, block by block, in float32:
/// one block is in memory at a time, and the residual stream at every block border. Loss: mean
/// next-token cross-entropy. Not thread-safe.
class SignalPasses {
 public:
  /// ids: [windows, seq] int64. `ends` and `rope` must outlive the passes, and `cache`, which may
  /// be null: streams then lie in memory.
  SignalPasses(const ModelEnds& ends, int64_t block_count, torch::Tensor ids, const RopeTable& rope,
               ActivationCache* cache, std::stop_token stop);

  /// Runs the model of `source` and keeps its streams, in place of those of the pass before.
  /// Returns the loss. kCancelled on a stop.
  absl::StatusOr<double> forward(const BlockSource& source, const BlockVisitor& visit);

  /// Backward pass of the same model, its activations computed again. Frobenius norms of
  /// d loss / d effective weight, by full projection name. A forward pass must precede it, and the
  /// streams, all but the last, stay as that left them.
  absl::StatusOr<std::map<std::string, double>> backward(const BlockSource& source,
                                                         const BlockVisitor& visit);

  /// What flows into block `index` in the pass before, [windows, seq, dim] float32.
  const torch::Tensor& stream(int64_t index) const { return streams_[static_cast<size_t>(index)]; }

  /// Mean KL(p || q) over next tokens, nats: p is what the forward pass before predicts (no
  /// backward pass in between), q what comes of `residual`, a last block's output [windows, seq,
  /// dim] float32.
  double divergence(const torch::Tensor& residual) const;

 private:
  absl::Status allocate();
  double loss(const torch::Tensor& residual) const;
  /// body(first, last) for windows at a time that keep activations small.
  template <class Body>
  void for_windows(const Body& body) const;

  const ModelEnds& ends_;
  int64_t block_count_;
  torch::Tensor ids_;  // [windows, seq]
  const RopeTable& rope_;
  ActivationCache* cache_;
  std::stop_token stop_;
  LanguageHead head_;
  std::vector<torch::Tensor> streams_;  // block_count + 1 of [windows, seq, dim]; the last one
                                        // turns into the gradient in a backward pass
};

/// A copy of nothing but form: the block's projections as dense float32 matrices of their effective
/// weights, each of which requires a gradient, behind the quantizers of their inputs.
std::map<std::string, torch::Tensor> make_weights_differentiable(DecoderBlock& block);

}  // namespace qaas
