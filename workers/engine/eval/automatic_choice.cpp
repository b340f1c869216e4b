#include "workers/engine/eval/automatic_choice.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>

#include <absl/strings/str_cat.h>

namespace qaas {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

/// Rises without noise: from the widest to the narrowest, each at least that before, none below 0.
std::vector<BitChoices> monotone(std::span<const BitChoices> projections) {
  std::vector<BitChoices> result(projections.begin(), projections.end());
  for (BitChoices& choices : result) {
    double least = 0;
    for (auto candidate = choices.candidates.rbegin(); candidate != choices.candidates.rend();
         ++candidate) {
      least = candidate->loss_rise = std::max(least, candidate->loss_rise);
    }
  }
  return result;
}

/// Index of a candidate for each projection.
struct Selection {
  std::vector<size_t> chosen;
  int64_t size = 0;
  double loss_rise = 0;
};

Selection selection_of(const std::vector<BitChoices>& projections, std::vector<size_t> chosen) {
  Selection selection{.chosen = std::move(chosen)};
  for (size_t p = 0; p < projections.size(); ++p) {
    const BitCandidate& candidate = projections[p].candidates[selection.chosen[p]];
    selection.size += candidate.size;
    selection.loss_rise += candidate.loss_rise;
  }
  return selection;
}

/// Unit in which sizes are counted: their common divisor, or coarser.
int64_t size_step(const std::vector<BitChoices>& projections, int64_t budget) {
  int64_t divisor = 0;
  for (const BitChoices& choices : projections) {
    for (const BitCandidate& candidate : choices.candidates) {
      divisor = std::gcd(divisor, candidate.size);
    }
  }
  return std::max(std::max<int64_t>(divisor, 1), (budget + kMostSizeSteps - 1) / kMostSizeSteps);
}

/// The smallest sum of rises among all selections of at most `budget`, sizes rounded up to steps;
/// empty where none fits.
std::vector<size_t> solve(const std::vector<BitChoices>& projections, int64_t budget) {
  const int64_t step = size_step(projections, budget);
  const auto capacity = static_cast<size_t>(budget / step);
  std::vector<double> best(capacity + 1, 0);  // smallest rise with at most this many steps
  std::vector<std::vector<uint8_t>> choice;   // by projection and steps
  for (const BitChoices& choices : projections) {
    std::vector<double> next(capacity + 1, kNever);
    choice.emplace_back(capacity + 1, 0);
    for (size_t c = 0; c < choices.candidates.size(); ++c) {
      const auto steps = static_cast<size_t>((choices.candidates[c].size + step - 1) / step);
      for (size_t used = steps; used <= capacity; ++used) {
        const double rise = best[used - steps] + choices.candidates[c].loss_rise;
        if (rise < next[used]) {  // on a tie the narrower width stays
          next[used] = rise;
          choice.back()[used] = static_cast<uint8_t>(c);
        }
      }
    }
    best = std::move(next);
  }
  if (best[capacity] == kNever) return {};
  std::vector<size_t> chosen(projections.size());
  size_t used = capacity;
  for (size_t p = projections.size(); p-- > 0;) {
    chosen[p] = choice[p][used];
    used -= static_cast<size_t>((projections[p].candidates[chosen[p]].size + step - 1) / step);
  }
  return chosen;
}

/// Spends what rounding left: the upgrade with the largest fall of the loss per size, while one
/// fits.
void spend_rest(const std::vector<BitChoices>& projections, int64_t budget, Selection& selection) {
  while (true) {
    double best_gain = 0;
    std::vector<size_t> better;
    for (size_t p = 0; p < projections.size(); ++p) {
      const auto& candidates = projections[p].candidates;
      const BitCandidate& now = candidates[selection.chosen[p]];
      for (size_t c = selection.chosen[p] + 1; c < candidates.size(); ++c) {
        const int64_t growth = candidates[c].size - now.size;
        const double gain = (now.loss_rise - candidates[c].loss_rise) / static_cast<double>(growth);
        if (selection.size + growth > budget || gain <= best_gain) continue;
        best_gain = gain;
        better = selection.chosen;
        better[p] = c;
      }
    }
    if (better.empty()) return;
    selection = selection_of(projections, std::move(better));
  }
}

}  // namespace

v1::AutomaticDecision choose_frozen(const v1::SignalReport& report, double freeze_share,
                                    const std::map<std::string, int64_t>& weights) {
  std::vector<const v1::ProjectionSignal*> ranked;
  int64_t total = 0;
  for (const v1::ProjectionSignal& signal : report.projections()) {
    if (signal.bits() == 0) continue;  // it keeps full precision
    ranked.push_back(&signal);
    total += weights.at(signal.projection());
  }
  const auto per_weight = [&](const v1::ProjectionSignal* signal) {
    return signal->loss_sensitivity() / static_cast<double>(weights.at(signal->projection()));
  };
  std::stable_sort(ranked.begin(), ranked.end(),
                   [&](const auto* a, const auto* b) { return per_weight(a) > per_weight(b); });
  v1::AutomaticDecision decision;
  const double most = freeze_share * static_cast<double>(total) * (1 + 1e-9);
  int64_t frozen = 0;
  for (const v1::ProjectionSignal* signal : ranked) {
    const int64_t size = weights.at(signal->projection());
    if (static_cast<double>(frozen + size) > most) continue;
    frozen += size;
    decision.add_frozen(signal->projection());
  }
  return decision;
}

absl::StatusOr<v1::AutomaticDecision> choose_bits(std::span<const BitChoices> given,
                                                  double average_bits) {
  const std::vector<BitChoices> projections = monotone(given);
  int64_t weights = 0;
  for (const BitChoices& choices : projections) weights += choices.weights;
  const auto budget = static_cast<int64_t>(std::floor(average_bits * static_cast<double>(weights)));

  // 1. One width for all.
  const size_t widths = projections.empty() ? 0 : projections.front().candidates.size();
  std::vector<Selection> uniform;
  for (size_t c = 0; c < widths; ++c) {
    Selection selection = selection_of(projections, std::vector<size_t>(projections.size(), c));
    if (selection.size <= budget) uniform.push_back(std::move(selection));
  }
  if (uniform.empty()) {
    const double least =
        widths == 0
            ? 0
            : static_cast<double>(
                  selection_of(projections, std::vector<size_t>(projections.size(), 0)).size) /
                  static_cast<double>(weights);
    return absl::InvalidArgumentError(absl::StrCat(
        "automatic.average_bits: ", average_bits, ", but the narrowest of candidate_bits needs ",
        least, " bits a weight with its scales and zero points"));
  }
  const Selection& best_uniform = *std::min_element(
      uniform.begin(), uniform.end(),
      [](const Selection& a, const Selection& b) { return a.loss_rise < b.loss_rise; });

  // 2. A width for each.
  Selection selection = best_uniform;
  if (std::vector<size_t> chosen = solve(projections, budget); !chosen.empty()) {
    Selection solved = selection_of(projections, std::move(chosen));
    spend_rest(projections, budget, solved);
    if (solved.loss_rise < selection.loss_rise) selection = std::move(solved);
  }

  v1::AutomaticDecision decision;
  for (size_t p = 0; p < projections.size(); ++p) {
    (*decision.mutable_bits())[projections[p].projection] =
        projections[p].candidates[selection.chosen[p]].bits;
  }
  decision.set_average_bits(static_cast<double>(selection.size) / static_cast<double>(weights));
  decision.set_predicted_loss_rise(selection.loss_rise);
  decision.set_uniform_loss_rise(best_uniform.loss_rise);
  return decision;
}

}  // namespace qaas
