#include "workers/engine/eval/language_model_score.h"

#include <algorithm>
#include <cmath>

#include <absl/status/status.h>

#include "workers/engine/eval/mean_estimate.h"
#include "workers/engine/eval/next_token_scores.h"

namespace qaas {
namespace {

/// Tokens whose hidden states are copied out of their windows at a time.
constexpr int64_t kTokensAtATime = 1024;

/// Every position of windows first .. last that predicts a token of its window, as rows.
/// [windows, seq, dim] → [(last - first) * (seq - 1), dim]
torch::Tensor predicting_rows(const torch::Tensor& hidden, int64_t first, int64_t last) {
  return hidden.slice(0, first, last)
      .narrow(1, 0, hidden.size(1) - 1)
      .reshape({-1, hidden.size(2)});
}

}  // namespace

absl::StatusOr<ScoredModel> score_hidden(const ModelEnds& ends, const torch::Tensor& hidden,
                                         const torch::Tensor& ids, const ModelEnds& reference_ends,
                                         const ScoredModel* reference,
                                         const std::stop_token& stop) {
  const int64_t windows = ids.size(0), seq = ids.size(1);
  TORCH_CHECK(seq >= 2, "windows of ", seq, " tokens predict nothing; at least 2 are needed");
  ScoredModel result{.hidden = hidden};
  double divergence_sum = 0, agreements = 0;
  const int64_t batch = std::max<int64_t>(1, kTokensAtATime / seq);
  for (int64_t first = 0; first < windows; first += batch) {
    if (stop.stop_requested()) return absl::CancelledError("scoring was stopped");
    const int64_t last = std::min(first + batch, windows);
    const torch::Tensor targets =
        ids.slice(0, first, last).narrow(1, 1, seq - 1).reshape({-1});  // [windows * (seq - 1)]
    const HiddenStates own{ends, predicting_rows(hidden, first, last)};
    NextTokenScores scores;
    if (reference == nullptr) {
      scores = score_next_tokens(own, targets, nullptr);
    } else {
      const HiddenStates other{reference_ends, predicting_rows(reference->hidden, first, last)};
      scores = score_next_tokens(own, targets, &other);
      divergence_sum += scores.divergence.sum().item<double>();
      agreements += static_cast<double>(scores.agrees.sum().item<int64_t>());
    }
    const torch::Tensor losses = -scores.log_likelihood.view({last - first, seq - 1}).mean(1);
    for (int64_t w = 0; w < last - first; ++w) {
      result.window_losses.push_back(losses[w].item<double>());
    }
  }
  const MeanEstimate loss = estimate_mean(result.window_losses);
  result.score.loss = loss.mean;
  result.score.loss_stderr = loss.standard_error;
  result.score.perplexity = std::exp(loss.mean);
  if (reference == nullptr) return result;
  const auto scored = static_cast<double>(windows * (seq - 1));
  result.score.kl_divergence = divergence_sum / scored;
  result.score.top1_agreement = agreements / scored;
  std::vector<double> differences;
  for (size_t w = 0; w < result.window_losses.size(); ++w) {
    differences.push_back(result.window_losses[w] - reference->window_losses[w]);
  }
  const MeanEstimate difference = estimate_mean(differences);
  result.score.loss_difference = difference.mean;
  result.score.loss_difference_stderr = difference.standard_error;
  return result;
}

absl::StatusOr<ScoredModel> score_model(const ModelEnds& ends, int64_t block_count,
                                        const BlockSource& source, const torch::Tensor& ids,
                                        const RopeTable& rope, const ModelEnds& reference_ends,
                                        const ScoredModel* reference, const ScoreProgress& progress,
                                        std::stop_token stop) {
  const absl::StatusOr<std::vector<torch::Tensor>> hidden =
      hidden_states({.ends = ends, .block_count = block_count, .block = source, .rope = rope},
                    {{ids}}, {.progress = progress}, stop);
  if (!hidden.ok()) return hidden.status();
  return score_hidden(ends, hidden->front().view({ids.size(0), ids.size(1), -1}), ids,
                      reference_ends, reference, stop);
}

}  // namespace qaas
