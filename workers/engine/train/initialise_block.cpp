#include "workers/engine/train/initialise_block.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <absl/strings/str_cat.h>

#include "workers/engine/quant/clip_search.h"
#include "workers/engine/quant/fake_quant_projection.h"

namespace qaas {
namespace {

/// Projections that share an input, in the order in which a block uses them.
const std::array<std::vector<std::string>, 4> kGroups = {{
    {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
    {"self_attn.o_proj"},
    {"mlp.gate_proj", "mlp.up_proj"},
    {"mlp.down_proj"},
}};

/// What is known of the inputs of a group of projections.
struct InputStatistics {
  std::optional<HessianAccumulator> hessian;  // only where GPTQ asks for it
  torch::Tensor square_sum;                   // [in] float32, otherwise
  int64_t tokens = 0;

  void add(const torch::Tensor& x) {
    tokens += x.size(0);
    if (hessian.has_value()) return hessian->add(x);
    const torch::Tensor squares = x.to(torch::kFloat32).square().sum(0);
    square_sum = square_sum.defined() ? square_sum + squares : squares;
  }
};

/// Stands where a projection's output does not matter: shows its input to `statistics`, if any,
/// and returns zeros without a product.
class ObservingProjection : public Projection {
 public:
  ObservingProjection(std::shared_ptr<Projection> observed, InputStatistics* statistics)
      : observed_(std::move(observed)), statistics_(statistics) {}

  torch::Tensor forward(const torch::Tensor& x) override {
    if (statistics_ != nullptr) statistics_->add(x);
    return torch::zeros({x.size(0), output_size()}, x.options());
  }
  int64_t output_size() const override { return observed_->output_size(); }
  torch::Tensor effective_weight() override { return observed_->effective_weight(); }

 private:
  std::shared_ptr<Projection> observed_;
  InputStatistics* statistics_;
};

/// A projection that is to be quantized.
struct Task {
  std::string name;
  torch::Tensor weight;  // [out, in] float32
  AffineGrid grid;
  Initializer initializer = Initializer::kMinMax;

  bool searches_clip(const InitialiseOptions& options) const {
    return initializer == Initializer::kClipSearch ||
           (initializer == Initializer::kGptq && options.gptq_qparams == GptqQparams::kClipSearch);
  }
  bool uses_inputs(const InitialiseOptions& options) const {
    return initializer == Initializer::kGptq ||
           (searches_clip(options) && options.clip_importance == ClipImportance::kMeanSquare);
  }
};

class BlockInitialiser {
 public:
  BlockInitialiser(DecoderBlock& block, const InitialiseOptions& options,
                   const torch::Tensor& inputs, const RopeTable& rope, std::stop_token stop)
      : block_(block), options_(options), inputs_(inputs), rope_(rope), stop_(std::move(stop)) {}

  /// Quantizes the projections of kGroups[group] that `tasks` holds.
  absl::Status run(size_t group, const std::vector<Task>& tasks) {
    if (tasks.empty()) return absl::OkStatus();
    const bool gptq = std::any_of(tasks.begin(), tasks.end(), [](const Task& task) {
      return task.initializer == Initializer::kGptq;
    });
    torch::Tensor hessian;     // [in, in] float32, where GPTQ asks for it
    torch::Tensor importance;  // [in] float32, where the clip search asks for it
    if (std::any_of(tasks.begin(), tasks.end(),
                    [&](const Task& task) { return task.uses_inputs(options_); })) {
      InputStatistics statistics;
      if (gptq) statistics.hessian.emplace(tasks.front().weight.size(1));
      if (const absl::Status status = observe(group, statistics); !status.ok()) return status;
      if (gptq) hessian = statistics.hessian->hessian();
      if (options_.clip_importance == ClipImportance::kMeanSquare) {
        importance = gptq ? hessian.diagonal().clone()
                          : statistics.square_sum / static_cast<double>(statistics.tokens);
      }
    }
    absl::StatusOr<GptqFactor> factor;
    if (gptq) {
      factor = factor_hessian(hessian, options_.gptq);
      hessian.reset();
      if (!factor.ok()) return naming(tasks, factor.status());
    }
    if (importance.defined() && !torch::isfinite(importance).all().item<bool>()) {
      return naming(tasks, absl::InvalidArgumentError("the mean square of its inputs on the "
                                                      "calibration text is NaN or infinite"));
    }
    std::map<std::string, std::shared_ptr<Projection>> quantized;
    for (const Task& task : tasks) {
      if (stop_.stop_requested()) return cancelled();
      Qparams qparams = task.searches_clip(options_)
                            ? clip_search_qparams(task.weight, task.grid, importance)
                            : min_max_qparams(task.weight, task.grid);
      torch::Tensor weight =
          task.initializer == Initializer::kGptq
              ? gptq_weights(task.weight, *factor, qparams, task.grid, options_.gptq)
              : task.weight.clone();
      quantized[task.name] =
          std::make_shared<FakeQuantProjection>(std::move(weight), std::move(qparams), task.grid);
    }
    replace([&](const std::string& name, const std::shared_ptr<Projection>& current) {
      const auto found = quantized.find(name);
      return found == quantized.end() ? current : found->second;
    });
    return absl::OkStatus();
  }

 private:
  static absl::Status cancelled() { return absl::CancelledError("initialising was stopped"); }

  static absl::Status naming(const std::vector<Task>& tasks, const absl::Status& status) {
    return absl::Status(status.code(),
                        absl::StrCat("projection '", tasks.front().name, "': ", status.message()));
  }

  void replace(const ProjectionRewrite& rewrite) { block_->rewrite_projections(rewrite); }

  /// Runs the block up to the projections of kGroups[group] and gathers their common input.
  absl::Status observe(size_t group, InputStatistics& statistics) {
    TORCH_CHECK(inputs_.defined() && inputs_.dim() == 3,
                "this initializer needs inputs [windows, seq, dim]");
    std::map<std::string, std::shared_ptr<Projection>> originals;
    for (size_t later = group; later < kGroups.size(); ++later) {
      for (const std::string& name : kGroups[later]) originals[name] = nullptr;
    }
    replace([&](const std::string& name,
                const std::shared_ptr<Projection>& current) -> std::shared_ptr<Projection> {
      const auto original = originals.find(name);
      if (original == originals.end()) return current;
      original->second = current;
      return std::make_shared<ObservingProjection>(
          current, name == kGroups[group].front() ? &statistics : nullptr);
    });
    absl::Status status;
    constexpr int64_t kTokensAtATime = 1024;
    const int64_t batch = std::max<int64_t>(1, kTokensAtATime / inputs_.size(1));
    for (int64_t first = 0; first < inputs_.size(0) && status.ok(); first += batch) {
      if (stop_.stop_requested()) status = cancelled();
      block_->forward(inputs_.slice(0, first, std::min(first + batch, inputs_.size(0))), rope_,
                      options_.compute);
    }
    replace([&](const std::string& name, const std::shared_ptr<Projection>& current) {
      const auto original = originals.find(name);
      return original == originals.end() ? current : original->second;
    });
    return status;
  }

  DecoderBlock& block_;
  const InitialiseOptions& options_;
  const torch::Tensor& inputs_;  // [windows, seq, dim] float32, or undefined
  const RopeTable& rope_;
  std::stop_token stop_;
};

}  // namespace

absl::Status initialise_block(DecoderBlock& block, const GridOf& grid_of,
                              const InitialiseOptions& options, const torch::Tensor& inputs,
                              const RopeTable& rope, std::stop_token stop) {
  const torch::NoGradGuard no_grad;
  std::array<std::vector<Task>, kGroups.size()> tasks;
  for (const auto& [name, projection] : block->projections()) {
    const auto dense = std::dynamic_pointer_cast<DenseProjection>(projection);
    TORCH_CHECK(dense != nullptr, "projection ", name, " is prepared already");
    const std::optional<AffineGrid> grid = grid_of(name, dense->weight().size(1));
    if (!grid.has_value()) continue;
    const auto group = std::find_if(kGroups.begin(), kGroups.end(), [&](const auto& names) {
      return std::find(names.begin(), names.end(), name) != names.end();
    });
    TORCH_CHECK(group != kGroups.end(), "projection ", name, " has no place in the order of use");
    tasks[static_cast<size_t>(group - kGroups.begin())].push_back(
        {.name = name,
         .weight = dense->weight(),
         .grid = *grid,
         .initializer = options.initializer(name)});
  }
  BlockInitialiser initialiser(block, options, inputs, rope, std::move(stop));
  for (size_t group = 0; group < tasks.size(); ++group) {
    const absl::Status status = initialiser.run(group, tasks[group]);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace qaas
