#pragma once

#include <torch/torch.h>

#include "workers/engine/model/decoder.h"

namespace qaas {

/// A model's hidden states and the head that reads them.
struct HiddenStates {
  const ModelEnds& ends;
  torch::Tensor hidden;  ///< [tokens, dim] float32, after the final norm
};

/// What a model says of the next token after each of a row of tokens.
struct NextTokenScores {
  torch::Tensor log_likelihood;  ///< of the target, nats, [tokens] float64
  torch::Tensor divergence;      ///< KL(reference || model), nats, [tokens] float64
  torch::Tensor agrees;          ///< likeliest token is the reference's (first of equals), [tokens]
};

/// Scores `model` in float32. targets: [tokens] int64. With `reference` (the same tokens through
/// another model of the same vocabulary) divergence and agreement are defined too.
///
/// Neither the [tokens, vocab] logits nor a float32 copy of the head ever exists: the head is read
/// in chunks of rows, each widened once for a thousand tokens, and the normaliser and the
/// divergence are carried from chunk to chunk.
NextTokenScores score_next_tokens(const HiddenStates& model, const torch::Tensor& targets,
                                  const HiddenStates* reference);

}  // namespace qaas
