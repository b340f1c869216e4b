#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <torch/torch.h>

#include "workers/engine/eval/block_pass.h"
#include "workers/engine/eval/signal_passes.h"
#include "workers/engine/model/activation_cache.h"
#include "workers/engine/model/decoder.h"

namespace qaas {

/// By full projection name: how much the loss (nats per token) rises when this projection alone is
/// quantized, in expectation over next tokens that the original itself predicts: the divergence
/// KL(original || variant), at least 0. On the text's own tokens small rises would be chance, and a
/// quantized projection that happens to suit them would pass for harmless.
using LossSensitivities = std::map<std::string, double>;

enum class SensitivityMethod {
  /// The divergence is measured with each projection quantized by itself.
  kMeasured,
  /// ½ · tokens · Σ (g·Δy)² over tokens, g the mean loss's gradient with respect to the
  /// projection's
  /// output and Δy the change of that output: the divergence's second-order expansion (it has no
  /// first-order term), with the empirical Fisher matrix of single tokens. One pass for all.
  kEstimated,
  /// Measured where that costs at most SensitivityOptions::measured_budget.
  kAutomatic,
};

struct SensitivityOptions {
  SensitivityMethod method = SensitivityMethod::kAutomatic;
  /// Multiply-adds that measuring may cost. Default: a minute or two of one core.
  double measured_budget = 5e12;
  /// Tokens on which divergences are measured, the first whole windows that hold them.
  int64_t measured_tokens = 2048;
};

/// A model in full precision and the text it is looked at with. Everything referred to must outlive
/// its use. The sources are called several times a block, in any order.
struct SignalInputs {
  const ModelEnds& ends;
  int64_t block_count = 0;
  BlockSource original;  ///< the block with dense projections
  torch::Tensor ids;     ///< [windows, seq] int64, at least one window of 2
  const RopeTable& rope;
  ActivationCache* cache = nullptr;  ///< holds streams; null: memory does
  std::stop_token stop;
};

/// `method` as it will be used for `variants` variants: kMeasured or kEstimated.
absl::StatusOr<SensitivityMethod> chosen_method(const SignalInputs& inputs, int64_t variants,
                                                const SensitivityOptions& options);

/// Sensitivities for each variant of the model, such as one bit width each: a source of blocks that
/// are quantized in any form. A projection that a variant keeps dense, with its input as it is, has
/// 0. kCancelled on a stop; whatever the sources fail with.
absl::StatusOr<std::vector<LossSensitivities>> loss_sensitivities(
    const SignalInputs& inputs, std::span<const BlockSource> variants,
    const SensitivityOptions& options);

/// Adds estimates to `sums`, one per variant: an observer for SignalPasses::backward over the
/// original.
BlockVisitor estimating_visitor(const SignalInputs& inputs, std::span<const BlockSource> variants,
                                std::vector<LossSensitivities>& sums);

}  // namespace qaas
