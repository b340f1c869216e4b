#include "workers/engine/eval/signal_passes.h"

#include <algorithm>
#include <utility>

#include "workers/engine/eval/next_token_scores.h"
#include "workers/engine/model/ops.h"
#include "workers/engine/quant/activation_quant.h"

namespace qaas {
namespace {

/// Tokens that run through a block at once.
constexpr int64_t kTokensAtATime = 1024;

/// Shows an observer what the projection it stands for does.
class ObservedProjection : public Projection {
 public:
  ObservedProjection(std::string name, std::shared_ptr<Projection> observed,
                     ProjectionObserver observer)
      : name_(std::move(name)),
        observed_(register_module("observed", std::move(observed))),
        observer_(std::move(observer)) {}

  torch::Tensor forward(const torch::Tensor& x) override {
    torch::Tensor y = observed_->forward(x);
    if (!y.requires_grad()) {
      observer_(name_, x.detach(), y.detach(), {});
      return y;
    }
    y.register_hook([this, input = x.detach(), output = y.detach()](const torch::Tensor& gradient) {
      const torch::NoGradGuard no_grad;
      observer_(name_, input, output, gradient);
    });
    return y;
  }
  int64_t output_size() const override { return observed_->output_size(); }
  torch::Tensor effective_weight() override { return observed_->effective_weight(); }

 private:
  std::string name_;
  std::shared_ptr<Projection> observed_;
  ProjectionObserver observer_;
};

void observe(DecoderBlock& block, const ProjectionObserver& observer) {
  if (!observer) return;
  block->rewrite_projections([&](const std::string& name, const std::shared_ptr<Projection>& p) {
    return std::make_shared<ObservedProjection>(name, p, observer);
  });
}

}  // namespace

std::map<std::string, torch::Tensor> make_weights_differentiable(DecoderBlock& block) {
  std::map<std::string, torch::Tensor> weights;
  block->rewrite_projections(
      [&](const std::string& name,
          const std::shared_ptr<Projection>& current) -> std::shared_ptr<Projection> {
        const auto dense = std::make_shared<DenseProjection>(current->effective_weight());
        weights[name] = dense->weight();
        weights[name].requires_grad_(true);
        const auto activation = std::dynamic_pointer_cast<ActivationQuantProjection>(current);
        if (activation == nullptr) return dense;
        return std::make_shared<ActivationQuantProjection>(dense, activation->quantizer());
      });
  return weights;
}

SignalPasses::SignalPasses(const ModelEnds& ends, int64_t block_count, torch::Tensor ids,
                           const RopeTable& rope, ActivationCache* cache, std::stop_token stop)
    : ends_(ends),
      block_count_(block_count),
      ids_(std::move(ids)),
      rope_(rope),
      cache_(cache),
      stop_(std::move(stop)),
      head_(ends, torch::kFloat32) {}

absl::Status SignalPasses::allocate() {
  const std::vector<int64_t> sizes = {ids_.size(0), ids_.size(1), ends_.embedding.size(1)};
  while (static_cast<int64_t>(streams_.size()) <= block_count_) {
    if (cache_ == nullptr) {
      streams_.push_back(torch::empty(sizes, torch::kFloat32));
      continue;
    }
    absl::StatusOr<torch::Tensor> stream = cache_->empty(sizes, torch::kFloat32);
    if (!stream.ok()) return stream.status();
    streams_.push_back(*std::move(stream));
  }
  return absl::OkStatus();
}

template <class Body>
void SignalPasses::for_windows(const Body& body) const {
  const int64_t windows = ids_.size(0);
  const int64_t batch = std::max<int64_t>(1, kTokensAtATime / ids_.size(1));
  for (int64_t first = 0; first < windows; first += batch) {
    body(first, std::min(first + batch, windows));
  }
}

absl::StatusOr<double> SignalPasses::forward(const BlockSource& source, const BlockVisitor& visit) {
  const torch::NoGradGuard no_grad;
  if (const absl::Status status = allocate(); !status.ok()) return status;
  embed_into(ends_, ids_, streams_.front());
  for (int64_t i = 0; i < block_count_; ++i) {
    if (stop_.stop_requested()) return absl::CancelledError("the signal report was stopped");
    absl::StatusOr<DecoderBlock> block = source(i);
    if (!block.ok()) return block.status();
    const absl::StatusOr<ProjectionObserver> observer = visit(i, *block);
    if (!observer.ok()) return observer.status();
    observe(*block, *observer);
    const torch::Tensor &from = stream(i), &to = stream(i + 1);
    for_windows([&](int64_t first, int64_t last) {
      to.slice(0, first, last)
          .copy_((*block)->forward(from.slice(0, first, last), rope_, torch::kFloat32));
    });
  }
  return loss(streams_.back());
}

double SignalPasses::loss(const torch::Tensor& residual) const {
  const torch::NoGradGuard no_grad;
  const int64_t seq = ids_.size(1);
  const torch::Tensor targets = ids_.narrow(1, 1, seq - 1).reshape({-1});  // [windows * (seq - 1)]
  const double sum = head_.evaluate(residual, [&](int64_t first, torch::Tensor& logits) {
    return ops::cross_entropy_(logits, targets.narrow(0, first, logits.size(0)), 0);
  });
  return sum / static_cast<double>(targets.numel());
}

double SignalPasses::divergence(const torch::Tensor& residual) const {
  const torch::NoGradGuard no_grad;
  const int64_t seq = ids_.size(1);
  double sum = 0;
  for_windows([&](int64_t first, int64_t last) {
    const auto hidden = [&](const torch::Tensor& stream) {  // [windows * (seq - 1), dim]
      const torch::Tensor rows = stream.slice(0, first, last).narrow(1, 0, seq - 1);
      return HiddenStates{ends_, final_hidden(ends_, rows.reshape({-1, stream.size(2)}))};
    };
    const HiddenStates original = hidden(streams_.back());
    const torch::Tensor targets = ids_.slice(0, first, last).narrow(1, 1, seq - 1).reshape({-1});
    sum += score_next_tokens(hidden(residual), targets, &original).divergence.sum().item<double>();
  });
  return std::max(0.0, sum / static_cast<double>(ids_.size(0) * (seq - 1)));
}

absl::StatusOr<std::map<std::string, double>> SignalPasses::backward(const BlockSource& source,
                                                                     const BlockVisitor& visit) {
  const torch::AutoGradMode with_grad(true);
  const torch::Tensor& gradient = streams_.back();  // d loss / d stream; the last stream at first
  const double scale = 1.0 / static_cast<double>(ids_.size(0) * (ids_.size(1) - 1));
  for_windows([&](int64_t first, int64_t last) {
    const torch::Tensor part = gradient.slice(0, first, last);
    part.copy_(head_.cross_entropy(part, ids_.slice(0, first, last), scale).gradient);
  });
  std::map<std::string, double> norms;
  for (int64_t i = block_count_; i-- > 0;) {
    if (stop_.stop_requested()) return absl::CancelledError("the signal report was stopped");
    absl::StatusOr<DecoderBlock> block = source(i);
    if (!block.ok()) return block.status();
    const absl::StatusOr<ProjectionObserver> observer = visit(i, *block);
    if (!observer.ok()) return observer.status();
    const std::map<std::string, torch::Tensor> weights = make_weights_differentiable(*block);
    observe(*block, *observer);
    for_windows([&](int64_t first, int64_t last) {
      const torch::Tensor input =
          stream(i).slice(0, first, last).detach().requires_grad_(true);  // [batch, seq, dim]
      const torch::Tensor part = gradient.slice(0, first, last);
      (*block)->forward(input, rope_, torch::kFloat32).backward(part);
      part.copy_(input.grad());
    });
    for (const auto& [name, weight] : weights) {
      norms[block_prefix(i) + name] = weight.grad().norm(2, torch::kFloat64).item<double>();
    }
  }
  return norms;
}

}  // namespace qaas
