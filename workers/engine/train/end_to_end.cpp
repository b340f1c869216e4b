#include "workers/engine/train/end_to_end.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include <absl/strings/str_cat.h>

#include "workers/engine/quant/fake_quant_projection.h"
#include "workers/engine/train/end_to_end_parameters.h"

namespace qaas {
namespace {

/// Bytes autograd keeps of one block for `tokens` tokens: about ten [dim]- and six
/// [intermediate]-wide float32 rows a token, three [seq]-wide ones a head, and the weights of
/// fake-quantized projections. Rough: it only chooses a strategy.
int64_t block_activation_bytes(const ModelEnds& ends, const DecoderBlock& block, int64_t tokens,
                               int64_t seq) {
  int64_t width = 10 * ends.embedding.size(1) + 48 * seq;
  int64_t weights = 0;
  for (const auto& [name, projection] : block->projections()) {
    width += projection->output_size();
    const auto fake = weight_as<FakeQuantProjection>(projection);
    if (fake != nullptr) weights += fake->weight().numel();
  }
  return (tokens * width + weights) * static_cast<int64_t>(sizeof(float));
}

/// Forward and backward passes of the whole model.
class EndToEndPass {
 public:
  EndToEndPass(const ModelEnds& ends, std::vector<DecoderBlock>& blocks, const RopeTable& rope,
               const torch::Tensor& ids, const StudentLoss& loss, const EndToEndOptions& options,
               size_t first_trained_block)
      : ends_(ends),
        blocks_(blocks),
        rope_(rope),
        ids_(ids),
        loss_(loss),
        compute_(options.compute),
        micro_(options.micro_batch_size),
        first_trained_(first_trained_block) {
    int64_t kept = 0;
    for (const DecoderBlock& block : blocks) {
      kept += block_activation_bytes(ends, block, micro_ * ids.size(1), ids.size(1));
    }
    keep_activations_ = kept <= options.activation_budget;
  }

  /// Adds the gradients of the mean loss over the targets of windows [count] int64, a few at a
  /// time; returns that mean. Nothing if stop was requested meanwhile.
  std::optional<double> accumulate(const torch::Tensor& windows, const std::stop_token& stop) {
    const double targets = target_count(windows);
    double sum = 0;
    for (int64_t at = 0; at < windows.size(0); at += micro_) {
      if (stop.stop_requested()) return std::nullopt;
      sum += backward(windows.slice(0, at, at + micro_), 1.0 / targets);
    }
    return sum / targets;
  }

  /// The mean loss alone. Nothing if stop was requested meanwhile.
  std::optional<double> evaluate(const torch::Tensor& windows, const std::stop_token& stop) {
    const torch::NoGradGuard no_grad;
    double sum = 0;
    for (int64_t at = 0; at < windows.size(0); at += micro_) {
      if (stop.stop_requested()) return std::nullopt;
      const torch::Tensor part = windows.slice(0, at, at + micro_);
      torch::Tensor stream = embed(ends_, ids_.index_select(0, part));  // [part, seq, dim]
      for (DecoderBlock& block : blocks_) stream = block->forward(stream, rope_, compute_);
      sum += loss_.evaluate(stream, part);
    }
    return sum / target_count(windows);
  }

 private:
  double target_count(const torch::Tensor& windows) const {
    return static_cast<double>(windows.size(0) * (ids_.size(1) - 1));
  }

  /// Adds the gradients of the summed loss · scale; returns the unscaled sum.
  double backward(const torch::Tensor& windows, double scale) {
    std::vector<torch::Tensor> inputs(blocks_.size()), outputs(blocks_.size());
    torch::Tensor stream = embed(ends_, ids_.index_select(0, windows));  // [count, seq, dim]
    for (size_t i = 0; i < blocks_.size(); ++i) {
      const bool trains = i >= first_trained_;
      const torch::AutoGradMode mode(trains && keep_activations_);
      const torch::Tensor input = stream.detach().requires_grad_(i > first_trained_);
      const torch::Tensor output = blocks_[i]->forward(input, rope_, compute_);
      stream = output.detach();
      if (trains) inputs[i] = input;
      if (trains && keep_activations_) outputs[i] = output;
    }
    const LanguageHead::Loss loss = loss_.backward(stream, windows, scale);
    torch::Tensor gradient = loss.gradient;
    for (size_t i = blocks_.size(); i-- > first_trained_;) {
      if (!keep_activations_) outputs[i] = blocks_[i]->forward(inputs[i], rope_, compute_);
      outputs[i].backward(gradient);
      outputs[i].reset();
      gradient = inputs[i].grad();
      inputs[i].reset();
    }
    return loss.sum;
  }

  const ModelEnds& ends_;
  std::vector<DecoderBlock>& blocks_;
  const RopeTable& rope_;
  const torch::Tensor ids_;  // [windows, seq]
  const StudentLoss& loss_;
  torch::ScalarType compute_;
  int64_t micro_;
  size_t first_trained_;
  bool keep_activations_ = false;
};

/// Which measurement is the best so far, and whether to go on.
class Validation {
 public:
  Validation(const EndToEndOptions& options, EndToEndParameters& parameters, TrainingReport& report)
      : options_(options), parameters_(parameters), report_(report) {
    for (size_t i = 0; i < report.validation_losses.size(); ++i) better(i);
  }

  bool started() const { return !report_.validation_losses.empty(); }

  /// Takes the loss after `step` steps. False if training is to end.
  bool add(int64_t step, double loss) {
    report_.validation_losses.push_back(loss);
    report_.validation_steps.push_back(step);
    const size_t latest = report_.validation_losses.size() - 1;
    if (better(latest) && options_.restore_best) parameters_.remember();
    return options_.patience == 0 || static_cast<int64_t>(latest - best_) < options_.patience;
  }

  /// Puts the best back if it is not what is at hand.
  void finish() {
    if (!options_.restore_best || !started()) return;
    if (report_.kept_step == report_.validation_steps[best_]) return;
    parameters_.restore();
    report_.kept_step = report_.validation_steps[best_];
  }

 private:
  bool better(size_t latest) {
    if (latest > 0 && !(report_.validation_losses[latest] < report_.validation_losses[best_])) {
      return false;
    }
    best_ = latest;
    return true;
  }

  const EndToEndOptions& options_;
  EndToEndParameters& parameters_;
  TrainingReport& report_;
  size_t best_ = 0;
};

absl::Status not_finite(const char* what, int64_t step, int64_t steps) {
  return absl::InternalError(absl::StrCat("end-to-end training diverged: ", what,
                                          " is not finite at step ", step, " of ", steps));
}

absl::Status check_options(const EndToEndOptions& options, const ModelEnds& ends,
                           const Teacher* teacher, const torch::Tensor& ids) {
  if (options.batch_size < 1 || options.micro_batch_size < 1) {
    return absl::InvalidArgumentError(absl::StrCat("batch size ", options.batch_size,
                                                   ", micro-batch size ", options.micro_batch_size,
                                                   ": expected 1 or more"));
  }
  if (options.validation_windows < 0 || options.validation_windows >= ids.size(0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("validation windows: ", options.validation_windows,
                     ", expected fewer than the ", ids.size(0), " windows there are"));
  }
  TORCH_CHECK(options.final_norm.learning_rate == 0 || teacher == nullptr ||
                  !teacher->ends.final_norm.is_same(ends.final_norm),
              "the final norm trains, so the student needs one of its own");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TrainingReport> train_end_to_end(
    const ModelEnds& ends, std::vector<DecoderBlock>& blocks, const torch::Tensor& ids,
    const RopeTable& rope, const EndToEndOptions& options, const Teacher* teacher,
    const EndToEndCheckpoints& checkpoints, const StepSink& sink, std::stop_token stop) {
  // 1. What trains, on what, and from where.
  if (const absl::Status status = check_options(options, ends, teacher, ids); !status.ok()) {
    return status;
  }
  const auto start = std::chrono::steady_clock::now();
  const int64_t windows = ids.size(0) - options.validation_windows, seq = ids.size(1);
  const int64_t steps_per_epoch = (windows + options.batch_size - 1) / options.batch_size;
  const int64_t steps = options.epochs * steps_per_epoch;
  const int64_t measured_every =
      options.validation_steps > 0 ? options.validation_steps : steps_per_epoch;
  const torch::Tensor held_out = torch::arange(windows, ids.size(0));
  const absl::StatusOr<StudentLoss> student_loss =
      StudentLoss::create(options.objective, ends, teacher, ids, options.compute);
  if (!student_loss.ok()) return student_loss.status();
  EndToEndParameters parameters(ends, blocks, options);
  if (parameters.empty()) {
    return absl::InvalidArgumentError(
        "end-to-end training has nothing to train: every learning rate is 0, or all is frozen");
  }
  TrainingReport report;
  if (checkpoints.resume_from != nullptr) {
    const EndToEndState& state = *checkpoints.resume_from;
    if (const absl::Status status = parameters.read_from(state); !status.ok()) return status;
    report.losses = state.losses;
    report.validation_losses = state.validation_losses;
    report.validation_steps = state.validation_steps;
    report.kept_step = state.step;
  }
  EndToEndPass pass(ends, blocks, rope, ids, *student_loss, options,
                    parameters.first_trained_block());
  Validation validation(options, parameters, report);
  int64_t saved = report.kept_step;
  const auto save = [&](int64_t step) -> absl::Status {
    if (!checkpoints.save || step == saved) return absl::OkStatus();
    EndToEndState state{.step = step,
                        .losses = report.losses,
                        .validation_losses = report.validation_losses,
                        .validation_steps = report.validation_steps};
    parameters.write_to(state);
    saved = step;
    return checkpoints.save(state);
  };
  const auto stopped = [&](int64_t step) -> absl::Status {
    const absl::Status status = save(step);
    return status.ok() ? absl::CancelledError("end-to-end training was stopped") : status;
  };
  if (options.validation_windows > 0 && !validation.started()) {
    const auto loss = pass.evaluate(held_out, stop);
    if (!loss.has_value()) return stopped(0);
    if (!std::isfinite(*loss)) return not_finite("validation loss", 0, steps);
    validation.add(0, *loss);
  }
  torch::Tensor order;  // [windows] int64, of the epoch at hand
  for (int64_t step = report.kept_step; step < steps; ++step) {
    const int64_t epoch = step / steps_per_epoch,
                  first = step % steps_per_epoch * options.batch_size;
    if (first == 0 || !order.defined()) {
      order = torch::tensor(visiting_order(windows, options.shuffle, options.seed, epoch));
    }
    // 2. Loss, gradients, update.
    const torch::Tensor batch = order.slice(0, first, first + options.batch_size);
    const std::optional<double> loss = pass.accumulate(batch, stop);
    if (!loss.has_value()) return stopped(step);
    if (!std::isfinite(*loss)) return not_finite("loss", step + 1, steps);
    const double norm =
        parameters.step(learning_rate_factor(options.schedule, step, steps), options.clip_norm);
    if (!std::isfinite(norm)) return not_finite("gradient", step + 1, steps);
    const int64_t tokens = batch.size(0) * seq;
    report.losses.push_back(*loss);
    report.tokens += tokens;
    report.kept_step = step + 1;
    sink({.step = step + 1, .step_count = steps, .loss = *loss, .tokens = tokens});
    // 3. The held-out windows, now and then and at the end.
    if (options.validation_windows > 0 && ((step + 1) % measured_every == 0 || step + 1 == steps)) {
      // Not interrupted: a state between an update and its measurement could not be gone on from.
      const auto measured = pass.evaluate(held_out, {});
      if (!std::isfinite(*measured)) return not_finite("validation loss", step + 1, steps);
      if (!validation.add(step + 1, *measured)) break;
    }
    if (checkpoints.every_steps > 0 && (step + 1) % checkpoints.every_steps == 0) {
      if (const absl::Status status = save(step + 1); !status.ok()) return status;
    }
  }
  // 4. The best.
  validation.finish();
  report.kept_epoch = report.kept_step / steps_per_epoch;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace qaas
