#include "workers/engine/eval/loss_sensitivity.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "workers/engine/train/block_ap.h"

namespace qaas {
namespace {

ProjectionObserver nothing() { return {}; }

/// Projections of a variant's block that are quantized in any way, by name inside the block.
std::map<std::string, std::shared_ptr<Projection>> quantized_projections(
    const DecoderBlock& block) {
  std::map<std::string, std::shared_ptr<Projection>> quantized;
  for (const auto& [name, projection] : block->projections()) {
    if (std::dynamic_pointer_cast<DenseProjection>(projection) == nullptr) {
      quantized[name] = projection;
    }
  }
  return quantized;
}

torch::Tensor measured_windows(const SignalInputs& inputs, const SensitivityOptions& options) {
  const int64_t windows =
      std::clamp<int64_t>(options.measured_tokens / inputs.ids.size(1), 1, inputs.ids.size(0));
  return inputs.ids.narrow(0, 0, windows);
}

void replace_projection(DecoderBlock& block, const std::string& name,
                        const std::shared_ptr<Projection>& replacement) {
  block->rewrite_projections(
      [&](const std::string& each, const std::shared_ptr<Projection>& current) {
        return each == name ? replacement : current;
      });
}

/// All dense blocks stay in memory: this is for models that are small enough to measure.
absl::StatusOr<std::vector<LossSensitivities>> measure(const SignalInputs& inputs,
                                                       std::span<const BlockSource> variants,
                                                       const SensitivityOptions& options) {
  std::vector<DecoderBlock> dense;
  for (int64_t i = 0; i < inputs.block_count; ++i) {
    absl::StatusOr<DecoderBlock> block = inputs.original(i);
    if (!block.ok()) return block.status();
    dense.push_back(*std::move(block));
  }
  SignalPasses passes(inputs.ends, inputs.block_count, measured_windows(inputs, options),
                      inputs.rope, inputs.cache, inputs.stop);
  const absl::StatusOr<double> loss =
      passes.forward([&](int64_t i) { return dense[static_cast<size_t>(i)]; },
                     [](int64_t, const DecoderBlock&) { return nothing(); });
  if (!loss.ok()) return loss.status();
  torch::Tensor residual = torch::empty_like(passes.stream(0));  // [windows, seq, dim]
  std::vector<LossSensitivities> result(variants.size());
  for (size_t i = 0; i < dense.size(); ++i) {
    for (size_t v = 0; v < variants.size(); ++v) {
      const auto index = static_cast<int64_t>(i);
      absl::StatusOr<DecoderBlock> variant = variants[v](index);
      if (!variant.ok()) return variant.status();
      const auto quantized = quantized_projections(*variant);
      for (const auto& [name, projection] : dense[i]->projections()) {
        double& rise = result[v][block_prefix(index) + name];
        const auto found = quantized.find(name);
        if (found == quantized.end()) continue;
        if (inputs.stop.stop_requested()) {
          return absl::CancelledError("the signal report was stopped");
        }
        replace_projection(dense[i], name, found->second);
        run_block_into(dense[i], passes.stream(index), residual, inputs.rope, torch::kFloat32);
        replace_projection(dense[i], name, projection);
        for (size_t later = i + 1; later < dense.size(); ++later) {
          run_block_into(dense[later], residual, residual, inputs.rope, torch::kFloat32);
        }
        rise = passes.divergence(residual);
      }
    }
  }
  return result;
}

}  // namespace

BlockVisitor estimating_visitor(const SignalInputs& inputs, std::span<const BlockSource> variants,
                                std::vector<LossSensitivities>& sums) {
  sums.resize(variants.size());
  const auto tokens = static_cast<double>(inputs.ids.size(0) * (inputs.ids.size(1) - 1));
  return [variants, &sums, tokens](
             int64_t index, const DecoderBlock& block) -> absl::StatusOr<ProjectionObserver> {
    std::vector<std::map<std::string, std::shared_ptr<Projection>>> quantized;
    for (size_t v = 0; v < variants.size(); ++v) {
      absl::StatusOr<DecoderBlock> variant = variants[v](index);
      if (!variant.ok()) return variant.status();
      quantized.push_back(quantized_projections(*variant));
      for (const auto& [name, projection] : block->projections()) {
        sums[v][block_prefix(index) + name] = 0;
      }
    }
    return ProjectionObserver([quantized = std::move(quantized), &sums, tokens, index](
                                  const std::string& name, const torch::Tensor& input,
                                  const torch::Tensor& output, const torch::Tensor& gradient) {
      for (size_t v = 0; v < quantized.size(); ++v) {
        const auto found = quantized[v].find(name);
        if (found == quantized[v].end()) continue;
        const torch::Tensor change = ((found->second->forward(input) - output) * gradient)
                                         .sum(1, /*keepdim=*/false, torch::kFloat64);  // [tokens]
        sums[v][block_prefix(index) + name] += 0.5 * tokens * change.square().sum().item<double>();
      }
    });
  };
}

absl::StatusOr<SensitivityMethod> chosen_method(const SignalInputs& inputs, int64_t variants,
                                                const SensitivityOptions& options) {
  if (options.method != SensitivityMethod::kAutomatic) return options.method;
  const absl::StatusOr<DecoderBlock> block = inputs.original(0);
  if (!block.ok()) return block.status();
  double weights = 0, runs = 0;
  for (const auto& [name, projection] : (*block)->projections()) {
    weights += static_cast<double>(projection->effective_weight().numel());
    ++runs;
  }
  // Each projection of each block: half the blocks on average, and the head for both models.
  const auto blocks = static_cast<double>(inputs.block_count);
  const double per_run =
      0.5 * (blocks + 1) * weights + 2 * static_cast<double>(inputs.ends.embedding.numel());
  const double cost = static_cast<double>(measured_windows(inputs, options).numel()) * blocks *
                      runs * static_cast<double>(variants) * per_run;
  return cost <= options.measured_budget ? SensitivityMethod::kMeasured
                                         : SensitivityMethod::kEstimated;
}

absl::StatusOr<std::vector<LossSensitivities>> loss_sensitivities(
    const SignalInputs& inputs, std::span<const BlockSource> variants,
    const SensitivityOptions& options) {
  const absl::StatusOr<SensitivityMethod> method =
      chosen_method(inputs, static_cast<int64_t>(variants.size()), options);
  if (!method.ok()) return method.status();
  if (*method == SensitivityMethod::kMeasured) return measure(inputs, variants, options);
  SignalPasses passes(inputs.ends, inputs.block_count, inputs.ids, inputs.rope, inputs.cache,
                      inputs.stop);
  const auto loss =
      passes.forward(inputs.original, [](int64_t, const DecoderBlock&) { return nothing(); });
  if (!loss.ok()) return loss.status();
  std::vector<LossSensitivities> result;
  const auto norms = passes.backward(inputs.original, estimating_visitor(inputs, variants, result));
  if (!norms.ok()) return norms.status();
  return result;
}

}  // namespace qaas
