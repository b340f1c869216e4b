#pragma once

#include <cstdint>
#include <functional>

#include <torch/torch.h>

#include "workers/engine/model/decoder.h"

namespace qaas {

/// From the last block's output to next-token probabilities, a chunk of tokens at a time: the full
/// [tokens, vocab] matrix never exists. The head is frozen.
class LanguageHead {
 public:
  /// Products run in `compute`. `ends` must outlive the head.
  LanguageHead(const ModelEnds& ends, torch::ScalarType compute);

  /// Log-probabilities of the next token, chunk by chunk: visit(first, log_probabilities) with
  /// log_probabilities [rows, vocab] float32 for rows first .. first + rows of
  /// hidden [tokens, dim] (after the final norm, float32).
  void for_each_chunk(const torch::Tensor& hidden,
                      const std::function<void(int64_t first, const torch::Tensor&)>& visit) const;

  struct Loss {
    double sum = 0;          ///< of the cross-entropy over all targets, nats
    torch::Tensor gradient;  ///< d (sum · scale) / d residual, [windows, seq, dim] float32
  };
  /// Cross-entropy of ids[:, 1:] predicted from residual[:, :-1] with its gradient times `scale`.
  /// residual: [windows, seq, dim] float32, last block's output; ids: [windows, seq] int64.
  Loss cross_entropy(const torch::Tensor& residual, const torch::Tensor& ids, double scale) const;

 private:
  const ModelEnds& ends_;
  torch::Tensor head_;  // [vocab, dim] in the compute type
};

}  // namespace qaas
