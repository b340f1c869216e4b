#include "workers/engine/eval/multiple_choice.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

#include "workers/engine/eval/mean_estimate.h"
#include "workers/engine/eval/next_token_scores.h"

namespace qaas {
namespace {

/// Tokens of a batch, padding included.
constexpr int64_t kTokensAtATime = 1024;

/// Tokens whose hidden states are gathered for the head at a time.
constexpr int64_t kRowsAtATime = 4096;

size_t best(const std::vector<double>& values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

}  // namespace

TaskScore score_choices(const Task& task, const std::vector<std::vector<double>>& log_likelihoods) {
  std::vector<double> right, right_by_length;
  for (size_t q = 0; q < task.questions.size(); ++q) {
    const Question& question = task.questions[q];
    std::vector<double> by_length;
    for (size_t c = 0; c < question.choices.size(); ++c) {
      const int64_t bytes = question.choices[c].bytes;
      by_length.push_back(bytes > 0 ? log_likelihoods[q][c] / static_cast<double>(bytes)
                                    : -std::numeric_limits<double>::infinity());
    }
    const auto gold = static_cast<size_t>(question.gold);
    right.push_back(best(log_likelihoods[q]) == gold ? 1 : 0);
    right_by_length.push_back(best(by_length) == gold ? 1 : 0);
  }
  const MeanEstimate acc = estimate_mean(right), acc_norm = estimate_mean(right_by_length);
  return {.name = task.name,
          .questions = static_cast<int64_t>(task.questions.size()),
          .acc = acc.mean,
          .acc_stderr = acc.standard_error,
          .acc_norm = acc_norm.mean,
          .acc_norm_stderr = acc_norm.standard_error};
}

TaskSequences::TaskSequences(const Task& task) : task_(task) {
  // 1. The different inputs: all tokens of a choice but the last, which is only predicted.
  std::map<std::vector<int32_t>, size_t> numbers;
  std::vector<size_t> input_of_choice;
  for (const Question& question : task.questions) {
    for (const Choice& choice : question.choices) {
      TORCH_CHECK(choice.scored >= 1 && choice.scored < std::ssize(choice.tokens), "a choice of ",
                  choice.tokens.size(), " tokens cannot have ", choice.scored, " predicted ones");
      std::vector<int32_t> input(choice.tokens.begin(), choice.tokens.end() - 1);
      input_of_choice.push_back(numbers.emplace(std::move(input), numbers.size()).first->second);
    }
  }
  std::vector<const std::vector<int32_t>*> inputs(numbers.size());
  for (const auto& [input, number] : numbers) inputs[number] = &input;

  // 2. Batches, shortest first.
  std::vector<size_t> order(inputs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return inputs[a]->size() < inputs[b]->size(); });
  std::vector<int64_t> row_of_input(inputs.size());
  int64_t row = 0;
  for (size_t first = 0, last = 0; first < order.size(); first = last) {
    while (last < order.size() &&
           (last == first ||
            (last - first + 1) * inputs[order[last]]->size() <= size_t{kTokensAtATime})) {
      ++last;
    }
    const auto count = static_cast<int64_t>(last - first);
    const auto length = static_cast<int64_t>(inputs[order[last - 1]]->size());
    torch::Tensor ids = torch::zeros({count, length}, torch::kInt64);
    auto values = ids.accessor<int64_t, 2>();
    for (int64_t i = 0; i < count; ++i) {
      const size_t input = order[first + static_cast<size_t>(i)];
      row_of_input[input] = row + i * length;
      for (size_t t = 0; t < inputs[input]->size(); ++t) {
        values[i][static_cast<int64_t>(t)] = (*inputs[input])[t];
      }
    }
    batches_.push_back(std::move(ids));
    row += count * length;
  }
  for (const size_t input : input_of_choice) first_rows_.push_back(row_of_input[input]);
}

ScoredTask TaskSequences::score(const ModelEnds& ends, const torch::Tensor& hidden) const {
  // 1. The rows that predict a continuation's tokens, and those tokens.
  std::vector<int64_t> rows, targets;
  size_t number = 0;
  for (const Question& question : task_.questions) {
    for (const Choice& choice : question.choices) {
      const int64_t length = std::ssize(choice.tokens);
      const int64_t first_row = first_rows_[number++];
      for (int64_t t = length - choice.scored; t < length; ++t) {
        rows.push_back(first_row + t - 1);
        targets.push_back(choice.tokens[static_cast<size_t>(t)]);
      }
    }
  }
  // 2. Their log-likelihoods.
  const torch::Tensor row_ids = torch::tensor(rows, torch::kInt64);
  const torch::Tensor target_ids = torch::tensor(targets, torch::kInt64);
  std::vector<double> token_scores;
  const auto count = static_cast<int64_t>(rows.size());
  for (int64_t first = 0; first < count; first += kRowsAtATime) {
    const int64_t last = std::min(first + kRowsAtATime, count);
    const HiddenStates gathered{ends, hidden.index_select(0, row_ids.slice(0, first, last))};
    const torch::Tensor scores =
        score_next_tokens(gathered, target_ids.slice(0, first, last), nullptr).log_likelihood;
    token_scores.insert(token_scores.end(), scores.data_ptr<double>(),
                        scores.data_ptr<double>() + scores.numel());
  }
  // 3. Summed by choice.
  ScoredTask scored;
  auto next = token_scores.begin();
  for (const Question& question : task_.questions) {
    std::vector<double>& sums = scored.log_likelihoods.emplace_back();
    for (const Choice& choice : question.choices) {
      sums.push_back(std::accumulate(next, next + choice.scored, 0.0));
      next += choice.scored;
    }
  }
  scored.score = score_choices(task_, scored.log_likelihoods);
  return scored;
}

}  // namespace qaas
