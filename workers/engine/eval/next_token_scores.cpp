#include "workers/engine/eval/next_token_scores.h"

#include <algorithm>

namespace qaas {
namespace {

constexpr int64_t kTokensAtATime = 1024;
constexpr int64_t kVocabAtATime = 2048;  // 8 MiB of float32 logits a chunk

/// Per token, over the chunks of the vocabulary seen so far: the greatest logit m, its token, and
/// Σ exp(z - m).
struct RunningSoftmax {
  torch::Tensor greatest;   // [tokens] float32
  torch::Tensor likeliest;  // [tokens] int64
  torch::Tensor sum;        // [tokens] float64

  explicit RunningSoftmax(int64_t tokens)
      : greatest(torch::full({tokens}, -std::numeric_limits<float>::infinity())),
        likeliest(torch::zeros({tokens}, torch::kInt64)),
        sum(torch::zeros({tokens}, torch::kFloat64)) {}

  struct Step {
    torch::Tensor exponentials;  // exp(z - m) with the new m, [tokens, rows]
    torch::Tensor shrink;        // what sums with the old m are to be multiplied by, [tokens] f64
  };
  /// Takes in logits [tokens, rows] of the vocabulary's rows from `first` on.
  Step add(const torch::Tensor& logits, int64_t first) {
    const auto [chunk_greatest, chunk_likeliest] = logits.max(1);
    likeliest = torch::where(chunk_greatest > greatest, chunk_likeliest + first, likeliest);
    const torch::Tensor before = greatest;  // [tokens]
    greatest = torch::maximum(greatest, chunk_greatest);
    Step step{.exponentials = (logits - greatest.unsqueeze(1)).exp_(),
              .shrink = (before - greatest).to(torch::kFloat64).exp_()};
    sum.mul_(step.shrink).add_(step.exponentials.sum(1).to(torch::kFloat64));
    return step;
  }
  /// log Σ exp(z), [tokens] float64
  torch::Tensor log_normaliser() const { return greatest.to(torch::kFloat64) + sum.log(); }
};

int64_t vocab_of(const ModelEnds& ends) {
  return ends.quantized_head ? ends.quantized_head->output_size() : ends.head.size(0);
}

torch::Tensor logits_of(const ModelEnds& ends, const torch::Tensor& hidden, int64_t first,
                        int64_t rows) {
  return torch::mm(hidden, head_rows(ends, first, rows).t());
}

NextTokenScores score_chunk(const HiddenStates& model, const torch::Tensor& targets,
                            const HiddenStates* reference) {
  const int64_t tokens = targets.size(0), vocab = vocab_of(model.ends);
  RunningSoftmax own(tokens), other(reference == nullptr ? 0 : tokens);
  torch::Tensor target_logit = torch::zeros({tokens}, torch::kFloat64);
  torch::Tensor weighted = torch::zeros({tokens}, torch::kFloat64);  // Σ exp(zq - mq)·(zq - zp)
  for (int64_t first = 0; first < vocab; first += kVocabAtATime) {
    const int64_t rows = std::min(kVocabAtATime, vocab - first);
    torch::Tensor z = logits_of(model.ends, model.hidden, first, rows);  // [tokens, rows]
    const torch::Tensor here = (targets >= first).logical_and_(targets < first + rows);
    const torch::Tensor column = (targets - first).clamp_(0, rows - 1).unsqueeze(1);
    target_logit += torch::where(here, z.gather(1, column).squeeze(1), 0.0f);
    own.add(z, first);
    if (reference == nullptr) continue;
    const torch::Tensor zq = logits_of(reference->ends, reference->hidden, first, rows);
    const RunningSoftmax::Step step = other.add(zq, first);
    weighted.mul_(step.shrink)
        .add_(z.neg_().add_(zq).mul_(step.exponentials).sum(1).to(torch::kFloat64));
  }
  NextTokenScores scores{.log_likelihood = target_logit - own.log_normaliser()};
  if (reference != nullptr) {
    scores.divergence = weighted / other.sum - other.log_normaliser() + own.log_normaliser();
    scores.agrees = own.likeliest == other.likeliest;
  }
  return scores;
}

}  // namespace

NextTokenScores score_next_tokens(const HiddenStates& model, const torch::Tensor& targets,
                                  const HiddenStates* reference) {
  const torch::NoGradGuard no_grad;
  TORCH_CHECK(reference == nullptr || vocab_of(reference->ends) == vocab_of(model.ends),
              "models of different vocabularies cannot be compared");
  const int64_t tokens = targets.size(0);
  NextTokenScores scores{.log_likelihood = torch::empty({tokens}, torch::kFloat64)};
  if (reference != nullptr) {
    scores.divergence = torch::empty({tokens}, torch::kFloat64);
    scores.agrees = torch::empty({tokens}, torch::kBool);
  }
  for (int64_t first = 0; first < tokens; first += kTokensAtATime) {
    const int64_t last = std::min(first + kTokensAtATime, tokens);
    const HiddenStates own{model.ends, model.hidden.slice(0, first, last)};
    const HiddenStates other{
        reference == nullptr ? model.ends : reference->ends,
        reference == nullptr ? own.hidden : reference->hidden.slice(0, first, last)};
    const NextTokenScores chunk =
        score_chunk(own, targets.slice(0, first, last), reference == nullptr ? nullptr : &other);
    scores.log_likelihood.slice(0, first, last).copy_(chunk.log_likelihood);
    if (reference == nullptr) continue;
    scores.divergence.slice(0, first, last).copy_(chunk.divergence);
    scores.agrees.slice(0, first, last).copy_(chunk.agrees);
  }
  return scores;
}

}  // namespace qaas
