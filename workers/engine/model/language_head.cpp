#include "workers/engine/model/language_head.h"

#include <algorithm>

#include "workers/engine/model/ops.h"

namespace qaas {
namespace {

/// Rows per chunk: about 32 MiB of float32 logits.
int64_t chunk_rows(int64_t vocab) { return std::max<int64_t>(16, (int64_t{8} << 20) / vocab); }

}  // namespace

LanguageHead::LanguageHead(const ModelEnds& ends, torch::ScalarType compute)
    : ends_(ends), head_(head_weight(ends, compute)) {}

void LanguageHead::for_each_chunk(
    const torch::Tensor& hidden,
    const std::function<void(int64_t first, const torch::Tensor&)>& visit) const {
  const torch::NoGradGuard no_grad;
  const int64_t rows = chunk_rows(head_.size(0));
  for (int64_t first = 0; first < hidden.size(0); first += rows) {
    const torch::Tensor chunk = hidden.slice(0, first, std::min(first + rows, hidden.size(0)));
    const torch::Tensor logits =
        torch::mm(chunk.to(head_.scalar_type()), head_.t()).to(torch::kFloat32);
    visit(first, torch::log_softmax(logits, -1));
  }
}

torch::Tensor LanguageHead::logits(const torch::Tensor& hidden) const {
  return torch::mm(hidden.to(head_.scalar_type()), head_.t());
}

LanguageHead::Loss LanguageHead::backward(const torch::Tensor& residual,
                                          const LogitsLoss& loss) const {
  const int64_t seq = residual.size(1), dim = residual.size(2);
  const torch::Tensor leaf = residual.detach().requires_grad_(true);
  torch::Tensor hidden;  // [windows * (seq - 1), dim]
  {
    const torch::AutoGradMode with_grad(true);
    hidden = final_hidden(ends_, leaf.narrow(1, 0, seq - 1).reshape({-1, dim}));
  }
  torch::Tensor gradient = torch::empty_like(hidden);  // d loss / d hidden
  Loss result;
  const int64_t rows_at_a_time = chunk_rows(head_.size(0));
  for (int64_t first = 0; first < hidden.size(0); first += rows_at_a_time) {
    const int64_t rows = std::min(rows_at_a_time, hidden.size(0) - first);
    const torch::NoGradGuard no_grad;
    torch::Tensor chunk = logits(hidden.narrow(0, first, rows));  // [rows, vocab], then gradient
    result.sum += loss(first, chunk);
    gradient.narrow(0, first, rows).copy_(torch::mm(chunk, head_));
  }
  hidden.backward(gradient);
  result.gradient = leaf.grad();
  return result;
}

double LanguageHead::evaluate(const torch::Tensor& residual, const LogitsLoss& loss) const {
  const torch::NoGradGuard no_grad;
  const int64_t seq = residual.size(1), dim = residual.size(2);
  const torch::Tensor hidden = final_hidden(
      ends_, residual.narrow(1, 0, seq - 1).reshape({-1, dim}));  // [windows * (seq - 1), dim]
  double sum = 0;
  const int64_t rows_at_a_time = chunk_rows(head_.size(0));
  for (int64_t first = 0; first < hidden.size(0); first += rows_at_a_time) {
    const int64_t rows = std::min(rows_at_a_time, hidden.size(0) - first);
    torch::Tensor chunk = logits(hidden.narrow(0, first, rows));  // [rows, vocab]
    sum += loss(first, chunk);
  }
  return sum;
}

LanguageHead::Loss LanguageHead::cross_entropy(const torch::Tensor& residual,
                                               const torch::Tensor& ids, double scale) const {
  const torch::Tensor targets = ids.narrow(1, 1, ids.size(1) - 1).reshape({-1});
  return backward(residual, [&](int64_t first, torch::Tensor& logits) {
    return ops::cross_entropy_(logits, targets.narrow(0, first, logits.size(0)), scale);
  });
}

}  // namespace qaas
