#include "workers/engine/eval/language_model_score.h"

#include <cmath>
#include <optional>

#include "workers/engine/model/language_head.h"
#include "workers/engine/train/block_ap.h"

namespace qaas {

absl::StatusOr<ScoredModel> score_model(const ModelEnds& ends, int64_t block_count,
                                        const BlockSource& source, const torch::Tensor& ids,
                                        const RopeTable& rope, const ModelEnds& reference_ends,
                                        const ScoredModel* reference, const ScoreProgress& progress,
                                        std::stop_token stop) {
  const torch::NoGradGuard no_grad;
  const int64_t windows = ids.size(0), seq = ids.size(1);
  torch::Tensor stream = embed(ends, ids);  // [windows, seq, dim]
  for (int64_t i = 0; i < block_count; ++i) {
    if (stop.stop_requested()) return absl::CancelledError("scoring was stopped");
    absl::StatusOr<DecoderBlock> block = source(i);
    if (!block.ok()) return block.status();
    stream = run_block(*block, stream, rope, torch::kFloat32);
    progress(static_cast<double>(i + 1) / static_cast<double>(block_count + 1));
  }
  ScoredModel result;
  result.hidden = final_hidden(ends, stream.view({windows * seq, -1})).view(stream.sizes());
  stream.reset();

  const LanguageHead head(ends, torch::kFloat32);
  std::optional<LanguageHead> reference_head;  // a float32 copy of its own: only where needed
  if (reference != nullptr) reference_head.emplace(reference_ends, torch::kFloat32);
  double loss_sum = 0, divergence_sum = 0;
  for (int64_t w = 0; w < windows; ++w) {
    if (stop.stop_requested()) return absl::CancelledError("scoring was stopped");
    const torch::Tensor targets = ids[w].narrow(0, 1, seq - 1).unsqueeze(1);  // [seq - 1, 1]
    head.for_each_chunk(
        result.hidden[w].narrow(0, 0, seq - 1), [&](int64_t first, const torch::Tensor& log_p) {
          const int64_t rows = log_p.size(0);
          loss_sum -=
              log_p.gather(1, targets.narrow(0, first, rows)).sum(torch::kFloat64).item<double>();
          if (reference == nullptr) return;
          // Same rows of the reference: chunks of one window are cut alike.
          const torch::Tensor hidden = reference->hidden[w].narrow(0, first, rows);
          reference_head->for_each_chunk(hidden, [&](int64_t, const torch::Tensor& log_q) {
            divergence_sum += (log_q.exp() * (log_q - log_p)).sum(torch::kFloat64).item<double>();
          });
        });
  }
  const auto scored = static_cast<double>(windows * (seq - 1));
  result.score = {.loss = loss_sum / scored,
                  .perplexity = std::exp(loss_sum / scored),
                  .kl_divergence = divergence_sum / scored};
  return result;
}

}  // namespace qaas
