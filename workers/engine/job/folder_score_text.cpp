// How a FolderScore is told: evaluate_folder.h.

#include <algorithm>

#include <absl/strings/str_format.h>
#include <nlohmann/json.hpp>

#include "workers/engine/job/evaluate_folder.h"

namespace qaas {
namespace {

using Json = nlohmann::ordered_json;

std::string one_line(const FolderScore::Text& text) {
  std::string line = absl::StrFormat("windows %d x %d  loss %.6f  perplexity %.4f", text.windows,
                                     text.sequence_length, text.model.loss, text.model.perplexity);
  if (text.original.has_value()) {
    absl::StrAppendFormat(&line, "  kl %.6f  top1 %.4f  difference %.6f +- %.6f",
                          text.model.kl_divergence, text.model.top1_agreement,
                          text.model.loss_difference, text.model.loss_difference_stderr);
  }
  return line + "\n";
}

std::string with_error(double value, double standard_error) {
  return absl::StrFormat("%.4f +- %.4f", value, standard_error);
}

using Row = std::vector<std::string>;

/// Columns as wide as their widest entry; the first to the left, the others to the right.
std::string table(const std::vector<Row>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const Row& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string text;
  for (const Row& row : rows) {
    absl::StrAppendFormat(&text, "%-*s", widths[0], row[0]);
    for (size_t c = 1; c < row.size(); ++c) {
      absl::StrAppendFormat(&text, "  %*s", widths[c], row[c]);
    }
    text += "\n";
  }
  return text;
}

std::string text_table(const std::vector<FolderScore::Text>& texts) {
  const bool compared = texts.front().original.has_value();
  std::vector<Row> rows = {{"text", "windows", "loss", "perplexity"}};
  if (compared) {
    rows[0].insert(rows[0].end(), {"original", "difference", "kl", "top-1"});
  }
  for (const FolderScore::Text& text : texts) {
    const LanguageModelScore& model = text.model;
    Row& row = rows.emplace_back();
    row = {text.name, absl::StrFormat("%d x %d", text.windows, text.sequence_length),
           with_error(model.loss, model.loss_stderr), absl::StrFormat("%.4f", model.perplexity)};
    if (!compared) continue;
    row.insert(row.end(), {absl::StrFormat("%.4f", text.original->perplexity),
                           with_error(model.loss_difference, model.loss_difference_stderr),
                           absl::StrFormat("%.6f", model.kl_divergence),
                           absl::StrFormat("%.4f", model.top1_agreement)});
  }
  return table(rows);
}

std::string task_table(const std::vector<FolderScore::Choices>& tasks) {
  const bool compared = tasks.front().original.has_value();
  std::vector<Row> rows = {{"task", "questions", "acc", "acc_norm"}};
  if (compared) rows[0].insert(rows[0].end(), {"original acc", "original acc_norm"});
  for (const FolderScore::Choices& task : tasks) {
    Row& row = rows.emplace_back();
    row = {task.model.name, absl::StrFormat("%d", task.model.questions),
           with_error(task.model.acc, task.model.acc_stderr),
           with_error(task.model.acc_norm, task.model.acc_norm_stderr)};
    if (!compared) continue;
    row.insert(row.end(), {with_error(task.original->acc, task.original->acc_stderr),
                           with_error(task.original->acc_norm, task.original->acc_norm_stderr)});
  }
  return table(rows);
}

Json to_json(const LanguageModelScore& score) {
  return {
      {"loss", score.loss}, {"loss_stderr", score.loss_stderr}, {"perplexity", score.perplexity}};
}

Json to_json(const TaskScore& score) {
  return {{"acc", score.acc},
          {"acc_stderr", score.acc_stderr},
          {"acc_norm", score.acc_norm},
          {"acc_norm_stderr", score.acc_norm_stderr}};
}

}  // namespace

std::string FolderScore::to_text() const {
  if (texts.size() == 1 && tasks.empty()) return one_line(texts.front());
  std::string text;
  if (!texts.empty()) text += text_table(texts);
  if (!texts.empty() && !tasks.empty()) text += "\n";
  if (!tasks.empty()) text += task_table(tasks);
  return text;
}

std::string FolderScore::to_json() const {
  Json json = {{"texts", Json::array()}, {"tasks", Json::array()}};
  for (const Text& text : texts) {
    Json entry = {{"name", text.name},
                  {"windows", text.windows},
                  {"sequence_length", text.sequence_length},
                  {"model", qaas::to_json(text.model)}};
    if (text.original.has_value()) {
      entry["model"]["kl_divergence"] = text.model.kl_divergence;
      entry["model"]["top1_agreement"] = text.model.top1_agreement;
      entry["model"]["loss_difference"] = text.model.loss_difference;
      entry["model"]["loss_difference_stderr"] = text.model.loss_difference_stderr;
      entry["original"] = qaas::to_json(*text.original);
    }
    json["texts"].push_back(std::move(entry));
  }
  for (const Choices& task : tasks) {
    Json entry = {{"name", task.model.name},
                  {"questions", task.model.questions},
                  {"model", qaas::to_json(task.model)}};
    if (task.original.has_value()) entry["original"] = qaas::to_json(*task.original);
    json["tasks"].push_back(std::move(entry));
  }
  return json.dump(2, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) + "\n";
}

}  // namespace qaas
