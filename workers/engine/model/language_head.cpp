#include "workers/engine/model/language_head.h"

#include <algorithm>

#include "workers/engine/model/ops.h"

namespace qaas {
namespace {

/// Rows per chunk: about 32 MiB of float32 logits.
int64_t chunk_rows(int64_t vocab) { return std::max<int64_t>(16, (int64_t{8} << 20) / vocab); }

}  // namespace

LanguageHead::LanguageHead(const ModelEnds& ends, torch::ScalarType compute)
    : ends_(ends), head_(ends.head.to(compute)) {}

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

LanguageHead::Loss LanguageHead::cross_entropy(const torch::Tensor& residual,
                                               const torch::Tensor& ids, double scale) const {
  const int64_t seq = ids.size(1), dim = residual.size(2);
  const torch::Tensor leaf = residual.detach().requires_grad_(true);
  torch::Tensor hidden;  // [windows * (seq - 1), dim]
  {
    const torch::AutoGradMode with_grad(true);
    hidden = final_hidden(ends_, leaf.narrow(1, 0, seq - 1).reshape({-1, dim}));
  }
  const torch::Tensor targets = ids.narrow(1, 1, seq - 1).reshape({-1});  // [windows * (seq - 1)]
  torch::Tensor gradient = torch::empty_like(hidden);                     // d loss / d hidden
  Loss loss;
  const int64_t rows_at_a_time = chunk_rows(head_.size(0));
  for (int64_t first = 0; first < hidden.size(0); first += rows_at_a_time) {
    const int64_t rows = std::min(rows_at_a_time, hidden.size(0) - first);
    const torch::Tensor chunk = hidden.detach().narrow(0, first, rows).to(head_.scalar_type());
    torch::Tensor logits = torch::mm(chunk, head_.t());  // [rows, vocab], then their gradient
    loss.sum += ops::cross_entropy_(logits, targets.narrow(0, first, rows), scale);
    gradient.narrow(0, first, rows).copy_(torch::mm(logits, head_));
  }
  hidden.backward(gradient);
  loss.gradient = leaf.grad();
  return loss;
}

}  // namespace qaas
