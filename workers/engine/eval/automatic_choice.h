#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "qaas/v1/measurements.pb.h"

/// Decisions from measured sensitivities: which projections to freeze, which to give more bits. No
/// torch; deterministic.
namespace qaas {

/// The most vulnerable quantized projections whose weights together are at most `freeze_share` of
/// all quantized weights, by falling loss rise per weight; one that no longer fits is passed over.
/// ov-freeze's choice comes out where o_proj and v_proj are the most vulnerable. `weights`: number
/// of weights by full name, for every projection of the report.
v1::AutomaticDecision choose_frozen(const v1::SignalReport& report, double freeze_share,
                                    const std::map<std::string, int64_t>& weights);

/// One projection for choose_bits.
struct BitCandidate {
  int bits = 0;
  int64_t size = 0;  ///< bits of memory at this width: codes, scales and zero points
  double loss_rise = 0;
};
struct BitChoices {
  std::string projection;
  int64_t weights = 0;
  std::vector<BitCandidate> candidates;  ///< the same widths for all projections, ascending
};

/// One width for each projection, so that all sizes together are at most average_bits times all
/// weights and the predicted rise of the loss (the sum of single ones) is smallest: a
/// multiple-choice knapsack, solved exactly by dynamic programming where the sizes' common divisor
/// allows at most kMostSizeSteps steps, else on sizes rounded up to that many. Never worse than the
/// best one width for all that fits. Noise is taken out of the rises first: a width never counts
/// for worse than a narrower one, nor for better than nothing at all. kInvalidArgument, naming the
/// field, when even the narrowest width does not fit.
absl::StatusOr<v1::AutomaticDecision> choose_bits(std::span<const BitChoices> projections,
                                                  double average_bits);

inline constexpr int64_t kMostSizeSteps = 100'000;

}  // namespace qaas
