#include "workers/engine/train/training.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

namespace qaas {
namespace {

constexpr size_t kReportedSteps = 16;

double mean(std::vector<double>::const_iterator first, std::vector<double>::const_iterator last) {
  return first == last ? 0.0
                       : std::accumulate(first, last, 0.0) / static_cast<double>(last - first);
}

}  // namespace

double TrainingReport::initial_loss() const {
  const auto count = static_cast<int64_t>(std::min(kReportedSteps, losses.size()));
  return mean(losses.begin(), losses.begin() + count);
}

double TrainingReport::final_loss() const {
  const auto count = static_cast<int64_t>(std::min(kReportedSteps, losses.size()));
  return mean(losses.end() - count, losses.end());
}

std::vector<int64_t> visiting_order(int64_t count, bool shuffle, uint64_t seed, int64_t epoch) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), int64_t{0});
  if (!shuffle) return order;
  std::seed_seq sequence{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
                         static_cast<uint32_t>(epoch)};
  std::mt19937_64 generator(sequence);
  // Fisher-Yates by hand: std::shuffle's use of the generator differs between libraries.
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[generator() % i]);
  return order;
}

}  // namespace qaas
