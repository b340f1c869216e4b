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

  /// Of hidden [rows, dim] (after the final norm): [rows, vocab] in the compute type.
  torch::Tensor logits(const torch::Tensor& hidden) const;

  /// Replaces the logits [rows, vocab] of targets first .. first + rows by the gradient of what is
  /// to be minimised, and returns the loss that is reported, summed over the rows. Targets are
  /// numbered window after window, seq - 1 each: the last token of a window predicts nothing.
  using LogitsLoss = std::function<double(int64_t first, torch::Tensor& logits)>;

  struct Loss {
    double sum = 0;          ///< over all targets, nats
    torch::Tensor gradient;  ///< with respect to residual, [windows, seq, dim] float32
  };
  /// Loss and gradient by `loss`, a chunk of targets at a time. The final norm's gradient too is
  /// accumulated where it requires one. residual: [windows, seq, dim] float32, last block's output.
  Loss backward(const torch::Tensor& residual, const LogitsLoss& loss) const;

  /// The loss alone.
  double evaluate(const torch::Tensor& residual, const LogitsLoss& loss) const;

  /// Cross-entropy of ids[:, 1:] predicted from residual[:, :-1]; the gradient is that of the sum
  /// times `scale`. ids: [windows, seq] int64.
  Loss cross_entropy(const torch::Tensor& residual, const torch::Tensor& ids, double scale) const;

 private:
  const ModelEnds& ends_;
  torch::Tensor head_;  // [vocab, dim] in the compute type
};

}  // namespace qaas
