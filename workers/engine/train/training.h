#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace qaas {

/// Where a training loop is, after each optimizer step.
struct TrainingStep {
  int64_t step = 0;  ///< steps done, from 1
  int64_t step_count = 0;
  double loss = 0;     ///< of this step
  int64_t tokens = 0;  ///< trained in this step
};
using StepSink = std::function<void(const TrainingStep&)>;

/// What a stage did.
struct TrainingReport {
  std::vector<double> losses;  ///< one a step
  /// Before training and after each epoch (or every so many steps), on held-out windows; empty
  /// without any.
  std::vector<double> validation_losses;
  std::vector<int64_t> validation_steps;  ///< end to end: steps done at each of them
  int64_t kept_epoch = 0;  ///< whose parameters were kept, 0 the start: the last, or the best
  int64_t kept_step = 0;   ///< end to end: the same, in steps
  double seconds = 0;
  int64_t tokens = 0;  ///< token passes

  /// Mean over the first and last steps (at most 16).
  double initial_loss() const;
  double final_loss() const;
  double tokens_per_second() const {
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
  }
};

/// Order in which `count` windows are visited in `epoch`: as they are, or shuffled by a generator
/// seeded with (seed, epoch) alone, so that a resumed run sees the same order.
std::vector<int64_t> visiting_order(int64_t count, bool shuffle, uint64_t seed, int64_t epoch);

}  // namespace qaas
