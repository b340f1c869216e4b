#include "workers/engine/train/end_to_end.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include <absl/strings/str_cat.h>

#include "workers/engine/model/language_head.h"
#include "workers/engine/quant/packed_projection.h"

namespace qaas {
namespace {

/// Bytes autograd keeps of one block for `tokens` tokens: about ten [dim]- and six
/// [intermediate]-wide float32 rows a token, and three [seq]-wide ones a head. Rough: it only
/// chooses a strategy.
int64_t block_activation_bytes(const ModelEnds& ends, DecoderBlock& block, int64_t tokens,
                               int64_t seq) {
  int64_t width = 10 * ends.embedding.size(1) + 48 * seq;
  for (const auto& [name, projection] : block->projections()) {
    width += projection->output_size();
  }
  return tokens * width * static_cast<int64_t>(sizeof(float));
}

class EndToEndPass {
 public:
  EndToEndPass(const ModelEnds& ends, std::vector<DecoderBlock>& blocks, const RopeTable& rope,
               const EndToEndOptions& options, bool keep_activations)
      : ends_(ends),
        blocks_(blocks),
        rope_(rope),
        compute_(options.compute),
        keep_activations_(keep_activations),
        head_(ends, options.compute) {}

  /// Adds the gradients of sum(cross-entropy) · scale to the scales; returns the unscaled sum.
  double accumulate(const torch::Tensor& ids, double scale) {
    std::vector<torch::Tensor> inputs, outputs;  // per block, [windows, seq, dim]
    torch::Tensor stream = embed(ends_, ids);
    for (size_t i = 0; i < blocks_.size(); ++i) {
      inputs.push_back(stream.detach().requires_grad_(i > 0));
      const torch::AutoGradMode mode(keep_activations_);
      outputs.push_back(blocks_[i]->forward(inputs.back(), rope_, compute_));
      stream = outputs.back().detach();
      if (!keep_activations_) outputs.back().reset();
    }
    const LanguageHead::Loss loss = head_.cross_entropy(stream, ids, scale);
    torch::Tensor gradient = loss.gradient;
    for (size_t i = blocks_.size(); i-- > 0;) {
      if (!keep_activations_) outputs[i] = blocks_[i]->forward(inputs[i], rope_, compute_);
      if (!outputs[i].requires_grad()) break;  // the first block, all in full precision
      outputs[i].backward(gradient);
      outputs[i].reset();
      gradient = inputs[i].grad();
      inputs[i].reset();
    }
    return loss.sum;
  }

 private:
  const ModelEnds& ends_;
  std::vector<DecoderBlock>& blocks_;
  const RopeTable& rope_;
  torch::ScalarType compute_;
  bool keep_activations_;
  LanguageHead head_;
};

AdamW optimizer_for(std::vector<DecoderBlock>& blocks, const AdamWOptions& options) {
  AdamW optimizer;
  for (DecoderBlock& block : blocks) {
    for (const auto& [name, projection] : block->projections()) {
      const auto packed = std::dynamic_pointer_cast<PackedProjection>(projection);
      if (packed != nullptr) optimizer.add_group({packed->scale()}, options);
    }
  }
  return optimizer;
}

}  // namespace

absl::StatusOr<TrainingReport> train_end_to_end(const ModelEnds& ends,
                                                std::vector<DecoderBlock>& blocks,
                                                const torch::Tensor& ids, const RopeTable& rope,
                                                const EndToEndOptions& options,
                                                const StepSink& sink, std::stop_token stop) {
  const int64_t windows = ids.size(0), seq = ids.size(1);
  const int64_t micro = std::min(options.micro_batch_size, windows);
  const int64_t steps_per_epoch = (windows + options.batch_size - 1) / options.batch_size;
  const int64_t steps = options.epochs * steps_per_epoch;
  const bool keep_activations =
      static_cast<int64_t>(blocks.size()) *
          block_activation_bytes(ends, blocks.front(), micro * seq, seq) <=
      options.activation_budget;
  const auto start = std::chrono::steady_clock::now();
  TrainingReport report;
  AdamW optimizer = optimizer_for(blocks, options.scale);
  EndToEndPass pass(ends, blocks, rope, options, keep_activations);
  for (int64_t epoch = 0; epoch < options.epochs; ++epoch) {
    const auto order = torch::tensor(visiting_order(windows, options.shuffle, options.seed, epoch));
    for (int64_t first = 0; first < windows; first += options.batch_size) {
      const int64_t last = std::min(first + options.batch_size, windows);
      const auto targets = static_cast<double>((last - first) * (seq - 1));
      double loss = 0;
      for (int64_t at = first; at < last; at += micro) {
        if (stop.stop_requested()) return absl::CancelledError("end-to-end training was stopped");
        const torch::Tensor batch =
            ids.index_select(0, order.slice(0, at, std::min(at + micro, last)));
        loss += pass.accumulate(batch, 1.0 / targets) / targets;
      }
      const auto step = static_cast<int64_t>(report.losses.size());
      if (!std::isfinite(loss)) {
        return absl::InternalError(absl::StrCat(
            "end-to-end training diverged: loss is not finite at step ", step + 1, " of ", steps));
      }
      optimizer.step(learning_rate_factor(options.schedule, step, steps), options.clip_norm);
      report.losses.push_back(loss);
      report.tokens += (last - first) * seq;
      sink({.step = step + 1, .step_count = steps, .loss = loss, .tokens = (last - first) * seq});
    }
  }
  optimizer.finish();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace qaas
