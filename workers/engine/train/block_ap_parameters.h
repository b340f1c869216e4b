#pragma once

#include <vector>

#include "workers/engine/model/decoder_block.h"
#include "workers/engine/train/adamw.h"
#include "workers/engine/train/block_ap.h"
#include "workers/engine/train/clipped_range.h"

namespace qaas {

/// The parameters of one block that Block-AP trains under its options, with their optimizer.
/// Turns requires_grad on for them, and off again when it dies.
class BlockApParameters {
 public:
  BlockApParameters(DecoderBlock& block, const BlockApOptions& options);
  ~BlockApParameters();
  BlockApParameters(const BlockApParameters&) = delete;
  BlockApParameters& operator=(const BlockApParameters&) = delete;

  /// Whether nothing trains: then there is no gradient either.
  bool empty() const { return trained_.empty(); }

  /// One update with the gradients that backward left, which are dropped.
  void step(double learning_rate_factor, double clip_norm);

  /// Remembers the values, in place of those remembered before; puts them back.
  void remember();
  void restore();

 private:
  /// Keeps a weight within half a step of where it started.
  struct RoundingBound {
    torch::Tensor weight;     // [out, in]
    torch::Tensor start;      // [out, in]
    torch::Tensor half_step;  // [out, groups, 1]
  };

  void add(const FakeQuantProjection& projection, const BlockApOptions& options);
  void train(const torch::Tensor& parameter, const AdamWOptions& options);

  AdamW optimizer_;
  std::vector<torch::Tensor> trained_;  // what changes in the block
  std::vector<torch::Tensor> remembered_;
  std::vector<ClippedRange> ranges_;
  std::vector<RoundingBound> bounds_;
};

}  // namespace qaas
