#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <vector>

#include <absl/status/statusor.h>
#include <torch/torch.h>

#include "workers/engine/model/decoder.h"

namespace qaas {

/// How a model writes its own training text (LLM-QAT, arXiv 2305.17888, section 2.1).
struct GenerationOptions {
  int64_t sequences = 1;
  int64_t length = 2048;      ///< tokens of each sequence, the first included; 1 or more
  int64_t greedy_tokens = 4;  ///< tokens after the first that are the likeliest; the paper's 3 to 5
  double temperature = 1;     ///< divides the logits when sampling; more than 0
  uint64_t seed = 0;          ///< of first tokens and samples
  torch::ScalarType compute = torch::kFloat32;  ///< of the products
};

/// Sequences written side by side: as many as keep the key/value caches within 1 GiB, at least one.
/// Follows from model and length alone, so that the text does not depend on the machine's memory.
int64_t sequences_at_once(const ModelConfig& config, const GenerationOptions& options);

/// Bytes of memory generate_text and blocks with weights in the compute type take, without what is
/// mapped: all blocks, the head, the caches and a step's probabilities.
int64_t generation_bytes(const ModelConfig& config, const GenerationOptions& options);

/// Called after each position with the share that is done.
using GenerationProgress = std::function<void(double fraction)>;

/// Text of the model's own: each sequence starts with a vocabulary entry of its own (all differ
/// while there are no more sequences than entries), goes on greedily, then by sampling. A sequence
/// goes on past an end-of-sequence token: windows have one length. The same seed writes the same
/// text with equal threads and compute type. `blocks` are all blocks of the model.
/// → [sequences, length] int64. kCancelled when `stop` is requested.
absl::StatusOr<torch::Tensor> generate_text(const ModelConfig& config, const ModelEnds& ends,
                                            std::vector<DecoderBlock>& blocks,
                                            const GenerationOptions& options,
                                            const GenerationProgress& progress,
                                            std::stop_token stop);

}  // namespace qaas
