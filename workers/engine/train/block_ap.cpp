#include "workers/engine/train/block_ap.h"

#include <chrono>
#include <cmath>

#include <absl/strings/str_cat.h>

#include "workers/engine/quant/fake_quant_projection.h"

namespace qaas {
namespace {

/// Rows of `source` named by order[first, last).
torch::Tensor gather(const torch::Tensor& source, const std::vector<int64_t>& order, int64_t first,
                     int64_t last) {
  const bool consecutive =
      order[static_cast<size_t>(last - 1)] - order[static_cast<size_t>(first)] ==
          last - 1 - first &&
      std::is_sorted(order.begin() + first, order.begin() + last);
  if (consecutive)
    return source.slice(0, order[static_cast<size_t>(first)],
                        order[static_cast<size_t>(last - 1)] + 1);
  return source.index_select(
      0, torch::tensor(std::vector<int64_t>(order.begin() + first, order.begin() + last)));
}

AdamW optimizer_for(DecoderBlock& block, const BlockApOptions& options) {
  AdamW optimizer;
  for (const auto& [name, projection] : block->projections()) {
    const auto fake = std::dynamic_pointer_cast<FakeQuantProjection>(projection);
    if (fake == nullptr) continue;  // kept in full precision: not trained
    optimizer.add_group(fake->quant_parameters(), options.quant);
    optimizer.add_group(fake->weight_parameters(), options.weight);
  }
  for (const auto& [name, norm] : block->norms()) optimizer.add_group({norm}, options.weight);
  return optimizer;
}

}  // namespace

absl::StatusOr<TrainingReport> block_ap(DecoderBlock& block, const torch::Tensor& inputs,
                                        const torch::Tensor& targets, const RopeTable& rope,
                                        const BlockApOptions& options, const StepSink& sink,
                                        std::stop_token stop) {
  const int64_t windows = inputs.size(0), seq = inputs.size(1);
  const int64_t steps_per_epoch = (windows + options.batch_size - 1) / options.batch_size;
  const int64_t steps = options.epochs * steps_per_epoch;
  const auto start = std::chrono::steady_clock::now();
  TrainingReport report;
  AdamW optimizer = optimizer_for(block, options);
  for (int64_t epoch = 0; epoch < options.epochs; ++epoch) {
    const auto order = visiting_order(windows, options.shuffle, options.seed, epoch);
    for (int64_t first = 0; first < windows; first += options.batch_size) {
      if (stop.stop_requested()) return absl::CancelledError("block training was stopped");
      const int64_t last = std::min(first + options.batch_size, windows);
      // 1. Error of the fake-quantized block on the quantized stream.
      const torch::Tensor output =
          block->forward(gather(inputs, order, first, last), rope, options.compute);
      torch::Tensor error;  // [batch, seq, dim]
      double loss = 0;
      {
        const torch::NoGradGuard no_grad;
        error = output - gather(targets, order, first, last);
        const double count = static_cast<double>(error.numel());
        loss = torch::dot(error.flatten(), error.flatten()).item<double>() / count;
        error.mul_(2.0 / count);  // d mean(error²) / d output
      }
      const auto step = static_cast<int64_t>(report.losses.size());
      if (!std::isfinite(loss)) {
        return absl::InternalError(absl::StrCat(
            "block training diverged: loss is not finite at step ", step + 1, " of ", steps));
      }
      // 2. Gradients and update.
      output.backward(error);
      optimizer.step(learning_rate_factor(options.schedule, step, steps), options.clip_norm);
      // 3. Report.
      report.losses.push_back(loss);
      report.tokens += (last - first) * seq;
      sink({.step = step + 1, .step_count = steps, .loss = loss, .tokens = (last - first) * seq});
    }
  }
  optimizer.finish();
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
  // Enough tokens at a time to keep the products efficient, few enough to stay in the caches.
  constexpr int64_t kTokensAtATime = 1024;
  const int64_t windows = inputs.size(0);
  const int64_t batch = std::max<int64_t>(1, kTokensAtATime / inputs.size(1));
  for (int64_t first = 0; first < windows; first += batch) {
    const int64_t last = std::min(first + batch, windows);
    outputs.slice(0, first, last)
        .copy_(block->forward(inputs.slice(0, first, last), rope, compute));
  }
}

}  // namespace qaas
