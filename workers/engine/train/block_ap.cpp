#include "workers/engine/train/block_ap.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include <absl/strings/str_cat.h>

#include "workers/engine/train/batch_prefetcher.h"
#include "workers/engine/train/block_ap_parameters.h"

namespace qaas {
namespace {

/// Windows at a time in passes without gradient: enough tokens to keep the products efficient, few
/// enough to stay in the caches.
int64_t windows_at_a_time(int64_t seq) {
  constexpr int64_t kTokensAtATime = 1024;
  return std::max<int64_t>(1, kTokensAtATime / seq);
}

/// The windows of every step of all epochs.
std::vector<std::vector<int64_t>> batches_of(int64_t windows, const BlockApOptions& options) {
  std::vector<std::vector<int64_t>> batches;
  for (int64_t epoch = 0; epoch < options.epochs; ++epoch) {
    const auto order = visiting_order(windows, options.shuffle, options.seed, epoch);
    for (int64_t first = 0; first < windows; first += options.batch_size) {
      const int64_t last = std::min(first + options.batch_size, windows);
      batches.emplace_back(order.begin() + first, order.begin() + last);
    }
  }
  return batches;
}

double sum_of_squares(const torch::Tensor& error) {
  return torch::dot(error.flatten(), error.flatten()).item<double>();
}

/// Mean squared error over all windows, without gradient. inputs, targets: [windows, seq, dim]
double validation_loss(DecoderBlock& block, const torch::Tensor& inputs,
                       const torch::Tensor& targets, const RopeTable& rope,
                       torch::ScalarType compute) {
  const torch::NoGradGuard no_grad;
  double sum = 0;
  const int64_t batch = windows_at_a_time(inputs.size(1));
  for (int64_t first = 0; first < inputs.size(0); first += batch) {
    const int64_t last = std::min(first + batch, inputs.size(0));
    sum += sum_of_squares(block->forward(inputs.slice(0, first, last), rope, compute) -
                          targets.slice(0, first, last));
  }
  return sum / static_cast<double>(inputs.numel());
}

/// Which epoch is the best so far, and whether to go on.
class Validation {
 public:
  Validation(const BlockApOptions& options, BlockApParameters& parameters, TrainingReport& report)
      : options_(options), parameters_(parameters), report_(report) {}

  /// Takes the loss after `epoch` (0: before training). False if training is to end.
  bool add(int64_t epoch, double loss) {
    report_.validation_losses.push_back(loss);
    if (epoch == 0 || loss < best_) {
      best_ = loss;
      best_epoch_ = epoch;
      if (options_.restore_best) parameters_.remember();
    }
    return options_.patience == 0 || epoch - best_epoch_ < options_.patience;
  }

  /// Puts the best epoch back if it is not the one at hand.
  void finish() {
    if (!options_.restore_best || best_epoch_ == report_.kept_epoch) return;
    parameters_.restore();
    report_.kept_epoch = best_epoch_;
  }

 private:
  const BlockApOptions& options_;
  BlockApParameters& parameters_;
  TrainingReport& report_;
  double best_ = 0;
  int64_t best_epoch_ = 0;
};

}  // namespace

absl::StatusOr<TrainingReport> block_ap(DecoderBlock& block, const torch::Tensor& inputs,
                                        const torch::Tensor& targets, const RopeTable& rope,
                                        const BlockApOptions& options, const StepSink& sink,
                                        std::stop_token stop) {
  const int64_t windows = inputs.size(0) - options.validation_windows, seq = inputs.size(1);
  if (windows < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("validation windows: ", options.validation_windows,
                     ", expected fewer than the ", inputs.size(0), " windows there are"));
  }
  const bool validates = options.validation_windows > 0;
  const auto start = std::chrono::steady_clock::now();
  TrainingReport report;
  BlockApParameters parameters(block, options);
  Validation validation(options, parameters, report);
  const auto validate = [&](int64_t epoch) {
    return !validates ||
           validation.add(epoch, validation_loss(block, inputs.slice(0, windows),
                                                 targets.slice(0, windows), rope, options.compute));
  };
  validate(0);
  auto batches = batches_of(windows, options);
  const auto steps = parameters.empty() ? int64_t{0} : static_cast<int64_t>(batches.size());
  const int64_t steps_per_epoch = (windows + options.batch_size - 1) / options.batch_size;
  BatchPrefetcher prefetcher(inputs, targets, std::move(batches));
  for (int64_t step = 0; step < steps; ++step) {
    if (stop.stop_requested()) return absl::CancelledError("block training was stopped");
    // 1. Error of the fake-quantized block on the quantized stream.
    const BatchPrefetcher::Batch batch = prefetcher.next();  // each [batch, seq, dim]
    const torch::Tensor output = block->forward(batch.inputs, rope, options.compute);
    torch::Tensor error;  // [batch, seq, dim]
    double loss = 0;
    {
      const torch::NoGradGuard no_grad;
      error = output - batch.targets;
      const auto count = static_cast<double>(error.numel());
      loss = sum_of_squares(error) / count;
      error.mul_(2.0 / count);  // d mean(error²) / d output
    }
    if (!std::isfinite(loss)) {
      return absl::InternalError(absl::StrCat(
          "block training diverged: loss is not finite at step ", step + 1, " of ", steps));
    }
    // 2. Gradients and update.
    output.backward(error);
    parameters.step(learning_rate_factor(options.schedule, step, steps), options.clip_norm);
    // 3. Report; at the end of an epoch, look at the held-out windows.
    const int64_t tokens = batch.inputs.size(0) * seq;
    report.losses.push_back(loss);
    report.tokens += tokens;
    sink({.step = step + 1, .step_count = steps, .loss = loss, .tokens = tokens});
    if ((step + 1) % steps_per_epoch != 0) continue;
    report.kept_epoch = (step + 1) / steps_per_epoch;
    if (!validate(report.kept_epoch)) break;
  }
  if (validates) validation.finish();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

torch::Tensor run_block(DecoderBlock& block, const torch::Tensor& inputs, const RopeTable& rope,
                        torch::ScalarType compute) {
  torch::Tensor outputs = torch::empty_like(inputs);
  run_block_into(block, inputs, outputs, rope, compute);
  return outputs;
}

void run_block_into(DecoderBlock& block, const torch::Tensor& inputs, const torch::Tensor& outputs,
                    const RopeTable& rope, torch::ScalarType compute) {
  const torch::NoGradGuard no_grad;
  const int64_t windows = inputs.size(0);
  const int64_t batch = windows_at_a_time(inputs.size(1));
  for (int64_t first = 0; first < windows; first += batch) {
    const int64_t last = std::min(first + batch, windows);
    outputs.slice(0, first, last)
        .copy_(block->forward(inputs.slice(0, first, last), rope, compute));
  }
}

}  // namespace qaas
