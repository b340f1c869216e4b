#include "workers/engine/eval/signal_report.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "workers/engine/eval/moments.h"
#include "workers/engine/quant/fake_quant_projection.h"
#include "workers/engine/quant/packed_projection.h"

namespace qaas {
namespace {

/// Signal and error power.
struct Powers {
  double signal = 0, error = 0;

  void add(const torch::Tensor& exact, const torch::Tensor& approximate) {
    signal += exact.square().sum(torch::kFloat64).item<double>();
    error += (exact - approximate).square().sum(torch::kFloat64).item<double>();
  }
  double sqnr() const {
    if (!(error > 0)) return kMostSqnr;
    return std::min(kMostSqnr, 10 * std::log10(std::max(signal, 1e-300) / error));
  }
};

struct Statistics {
  int bits = 0;
  Powers weight, output;
  Moments input, original_output, quantized_output;
};
using StatisticsByName = std::map<std::string, Statistics>;

int bits_of(const std::shared_ptr<Projection>& projection) {
  if (const auto fake = weight_as<FakeQuantProjection>(projection)) return fake->grid().bits;
  if (const auto packed = weight_as<PackedProjection>(projection)) return packed->bits();
  return 0;
}

SignalInputs reported(const SignalInputs& inputs) {
  SignalInputs part = inputs;
  part.ids = inputs.ids.narrow(0, 0, std::min(kMostSignalWindows, inputs.ids.size(0)));
  return part;
}

/// Watches the original run, with the quantized projections beside it.
BlockVisitor comparing_visitor(const BlockSource& quantized, StatisticsByName& statistics,
                               std::vector<std::string>& order) {
  return [&quantized, &statistics, &order](
             int64_t index, const DecoderBlock& block) -> absl::StatusOr<ProjectionObserver> {
    absl::StatusOr<DecoderBlock> other = quantized(index);
    if (!other.ok()) return other.status();
    const std::string prefix = block_prefix(index);
    const auto original = block->projections(), replaced = (*other)->projections();
    std::map<std::string, std::shared_ptr<Projection>> by_name;
    for (size_t p = 0; p < original.size(); ++p) {
      const std::string name = prefix + original[p].first;
      order.push_back(name);
      by_name[original[p].first] = replaced[p].second;
      Statistics& s = statistics[name];
      s.bits = bits_of(replaced[p].second);
      s.weight.add(original[p].second->effective_weight(), replaced[p].second->effective_weight());
    }
    return ProjectionObserver([prefix, by_name = std::move(by_name), &statistics](
                                  const std::string& name, const torch::Tensor& input,
                                  const torch::Tensor& output, const torch::Tensor&) {
      Statistics& s = statistics.at(prefix + name);
      s.input.add(input);
      s.original_output.add(output);
      s.output.add(output, by_name.at(name)->forward(input));
    });
  };
}

BlockVisitor output_visitor(StatisticsByName& statistics) {
  return [&statistics](int64_t index, const DecoderBlock&) -> absl::StatusOr<ProjectionObserver> {
    return ProjectionObserver(
        [prefix = block_prefix(index), &statistics](
            const std::string& name, const torch::Tensor&, const torch::Tensor& output,
            const torch::Tensor&) { statistics.at(prefix + name).quantized_output.add(output); });
  };
}

absl::StatusOr<ProjectionObserver> watch_nothing(int64_t, const DecoderBlock&) {
  return ProjectionObserver();
}

}  // namespace

absl::StatusOr<v1::SignalReport> signal_report(const SignalInputs& all,
                                               const BlockSource& quantized,
                                               const SignalReportOptions& options) {
  const SignalInputs inputs = reported(all);
  const std::span<const BlockSource> variants(&quantized, 1);
  const absl::StatusOr<SensitivityMethod> method = chosen_method(inputs, 1, options.sensitivity);
  if (!method.ok()) return method.status();
  const bool estimated = *method == SensitivityMethod::kEstimated;
  SignalPasses passes(inputs.ends, inputs.block_count, inputs.ids, inputs.rope, inputs.cache,
                      inputs.stop);

  // 1. The original: statistics on the way forward, gradients and estimates on the way back.
  StatisticsByName statistics;
  std::vector<std::string> order;
  const auto loss =
      passes.forward(inputs.original, comparing_visitor(quantized, statistics, order));
  if (!loss.ok()) return loss.status();
  std::vector<LossSensitivities> sensitivities;
  const auto original_norms = passes.backward(
      inputs.original, estimated ? estimating_visitor(inputs, variants, sensitivities)
                                 : BlockVisitor(watch_nothing));
  if (!original_norms.ok()) return original_norms.status();

  // 2. The quantized model.
  const auto quantized_loss = passes.forward(quantized, output_visitor(statistics));
  if (!quantized_loss.ok()) return quantized_loss.status();
  const auto quantized_norms = passes.backward(quantized, watch_nothing);
  if (!quantized_norms.ok()) return quantized_norms.status();

  // 3. Each projection by itself.
  if (!estimated) {
    auto measured = loss_sensitivities(inputs, variants, options.sensitivity);
    if (!measured.ok()) return measured.status();
    sensitivities = *std::move(measured);
  }

  v1::SignalReport report;
  report.set_windows(inputs.ids.size(0));
  report.set_sequence_length(static_cast<int32_t>(inputs.ids.size(1)));
  report.set_sensitivity_estimated(estimated);
  for (const std::string& name : order) {
    const Statistics& s = statistics.at(name);
    v1::ProjectionSignal& signal = *report.add_projections();
    signal.set_projection(name);
    signal.set_bits(s.bits);
    signal.set_weight_sqnr_db(s.weight.sqnr());
    signal.set_output_sqnr_db(s.output.sqnr());
    signal.set_gradient_norm_original(original_norms->at(name));
    signal.set_gradient_norm_quantized(quantized_norms->at(name));
    signal.set_input_mean(s.input.mean());
    signal.set_input_variance(s.input.variance());
    signal.set_input_kurtosis(s.input.kurtosis());
    signal.set_output_mean_original(s.original_output.mean());
    signal.set_output_variance_original(s.original_output.variance());
    signal.set_output_mean_quantized(s.quantized_output.mean());
    signal.set_output_variance_quantized(s.quantized_output.variance());
    signal.set_loss_sensitivity(sensitivities.front().at(name));
    signal.set_frozen(options.frozen && options.frozen(name));
  }
  return report;
}

absl::Status add_trained_gradients(const SignalInputs& all, const ModelEnds& ends,
                                   const BlockSource& trained, v1::SignalReport& report) {
  const SignalInputs inputs = reported(all);
  SignalPasses passes(ends, inputs.block_count, inputs.ids, inputs.rope, inputs.cache, inputs.stop);
  const auto loss = passes.forward(trained, watch_nothing);
  if (!loss.ok()) return loss.status();
  const auto norms = passes.backward(trained, watch_nothing);
  if (!norms.ok()) return norms.status();
  for (v1::ProjectionSignal& signal : *report.mutable_projections()) {
    signal.set_gradient_norm_trained(norms->at(signal.projection()));
  }
  return absl::OkStatus();
}

}  // namespace qaas
