#include <string>
#include <utility>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>

#include "clients/cli/job_text.h"
#include "clients/cli/text.h"

namespace qaas::cli {
namespace {

constexpr int kDigits = 5;

std::string predicted(const v1::Prediction& prediction) {
  return prediction.has_error() ? format_signed(prediction.error()) : "none";
}

/// "chen2025 W4A16, published error 5.2 %, outside its fit (N 3.1M, fitted 74.0M to 595.0M)".
std::string source_words(const v1::Prediction& prediction) {
  if (prediction.source().empty()) return "no law";
  std::string text = printable(prediction.source());
  if (prediction.has_relative_error()) {
    absl::StrAppendFormat(&text, ", published error %.1f %%", 100 * prediction.relative_error());
  }
  std::vector<std::string> outside;
  for (const v1::PredictionInput& input : prediction.inputs()) {
    if (input.in_range()) continue;
    outside.push_back(absl::StrCat(printable(input.symbol()), " ", format_count(input.value()),
                                   ", fitted ", format_count(input.fitted_min()), " to ",
                                   format_count(input.fitted_max())));
  }
  absl::StrAppend(&text, prediction.extrapolated() ? ", outside its fit" : ", inside its fit");
  if (!outside.empty()) absl::StrAppend(&text, " (", absl::StrJoin(outside, "; "), ")");
  return text;
}

std::string notes_text(const v1::Prediction& prediction) {
  std::string text;
  for (const std::string& note : prediction.notes()) {
    absl::StrAppend(&text, "    - ", printable(note), "\n");
  }
  return text;
}

std::string error_to_original(const v1::ModelScore& score, const v1::ModelScore& original) {
  return format_signed(score.loss() - original.loss());
}

/// Rows of a service that tells how sure it is; an older one leaves these figures out.
void add_certainty(Table& table, const v1::Evaluation& evaluation) {
  const v1::ModelScore& nearest = evaluation.round_to_nearest();
  const v1::ModelScore& quantized = evaluation.quantized();
  if (quantized.loss_difference_stderr() > 0) {
    table.add_row({"  its standard error", "", format_number(nearest.loss_difference_stderr()),
                   format_number(quantized.loss_difference_stderr())});
  }
  if (quantized.top1_agreement() > 0) {
    table.add_row({"top-1 agreement", "", format_number(nearest.top1_agreement()),
                   format_number(quantized.top1_agreement())});
  }
}

/// "0.512 (0.014)"; empty where the model was not scored.
std::string accuracy_cell(bool scored, double accuracy, double standard_error) {
  if (!scored) return "";
  return absl::StrCat(format_number(accuracy), " (", format_number(standard_error, 2), ")");
}

void add_texts_and_tasks(Table& table, const v1::Evaluation& evaluation) {
  for (const v1::TextScore& text : evaluation.texts()) {
    const std::string name = printable(text.dataset());
    table.add_row({"perplexity, " + name, format_number(text.original().perplexity(), kDigits),
                   format_number(text.round_to_nearest().perplexity(), kDigits),
                   format_number(text.quantized().perplexity(), kDigits)});
    table.add_row({"KL, " + name, "", format_number(text.round_to_nearest().kl_divergence()),
                   format_number(text.quantized().kl_divergence())});
  }
  for (const v1::TaskScore& task : evaluation.tasks()) {
    const std::string name = printable(task.task());
    const auto cells = [](bool scored, const v1::TaskAccuracy& score) {
      return std::pair(accuracy_cell(scored, score.acc(), score.acc_stderr()),
                       accuracy_cell(scored, score.acc_norm(), score.acc_norm_stderr()));
    };
    const auto [original, original_norm] = cells(task.has_original(), task.original());
    const auto [nearest, nearest_norm] =
        cells(task.has_round_to_nearest(), task.round_to_nearest());
    const auto [quantized, quantized_norm] = cells(task.has_quantized(), task.quantized());
    table.add_row({name + " acc (standard error)", original, nearest, quantized});
    table.add_row({name + " acc_norm", original_norm, nearest_norm, quantized_norm});
  }
}

}  // namespace

std::string result_text(const v1::Job& job) {
  const v1::Evaluation& evaluation = job.evaluation();
  const v1::ModelScore& original = evaluation.original();
  const v1::ModelScore& nearest = evaluation.round_to_nearest();
  const v1::ModelScore& quantized = evaluation.quantized();

  Table table({"", "original", "round-to-nearest", "quantized"}, Table::Align::kRight);
  table.add_row({"perplexity", format_number(original.perplexity(), kDigits),
                 format_number(nearest.perplexity(), kDigits),
                 format_number(quantized.perplexity(), kDigits)});
  table.add_row({"KL from the original, nats", "", format_number(nearest.kl_divergence()),
                 format_number(quantized.kl_divergence())});
  table.add_row({"measured error, nats", "", error_to_original(nearest, original),
                 format_signed(evaluation.measured_error())});
  add_certainty(table, evaluation);
  if (job.has_forecast()) {
    table.add_row({"predicted error, nats", "", predicted(job.forecast().round_to_nearest()),
                   predicted(job.forecast().quantized())});
  }
  add_texts_and_tasks(table, evaluation);
  table.add_row({"weight file", format_bytes(evaluation.original_bytes()), "",
                 format_bytes(evaluation.artifact_bytes())});
  std::string text = table.text();

  for (const v1::StageScore& stage : evaluation.stages()) {
    absl::StrAppend(&text, "after ", printable(stage.stage()), ": perplexity ",
                    format_number(stage.score().perplexity(), kDigits), ", ",
                    format_duration(stage.seconds()), ", ", format_count(stage.tokens_per_second()),
                    " tokens/s\n");
  }
  absl::StrAppend(&text, "measured on ", printable(evaluation.dataset()), ": ",
                  evaluation.windows(), " windows of ", evaluation.sequence_length(),
                  " tokens; error is mean loss minus the original's\n");
  if (job.has_forecast()) {
    absl::StrAppend(&text, "predicted by ", source_words(job.forecast().quantized()),
                    "; round-to-nearest by ", source_words(job.forecast().round_to_nearest()),
                    "\n");
  }
  if (evaluation.same_source()) {
    absl::StrAppend(&text,
                    "note: calibration and evaluation text come from one source; adapting to it "
                    "may hide quantization error, so read the KL divergence too\n");
  }
  return text;
}

std::string forecast_text(const v1::Forecast& forecast) {
  std::string text = absl::StrCat(
      "predicted error, nats a token\n  quantized         ", predicted(forecast.quantized()), "  ",
      source_words(forecast.quantized()), "\n", notes_text(forecast.quantized()),
      "  round-to-nearest  ", predicted(forecast.round_to_nearest()), "  ",
      source_words(forecast.round_to_nearest()), "\n", notes_text(forecast.round_to_nearest()));
  absl::StrAppendFormat(&text, "weight file  %s -> %s (%.2f bits per quantized weight)\n",
                        format_bytes(forecast.original_bytes()),
                        format_bytes(forecast.artifact_bytes()), forecast.bits_per_weight());
  absl::StrAppend(&text, "needs about  ", format_bytes(forecast.memory_bytes()), " memory, ",
                  format_bytes(forecast.disk_bytes()), " scratch disk\n");
  for (const v1::RuntimeSupport& runtime : forecast.runtimes()) {
    absl::StrAppend(&text, "  ", printable(runtime.runtime()), ": ",
                    runtime.loads() ? "loads it" : "does not load it");
    if (!runtime.reason().empty()) absl::StrAppend(&text, ": ", printable(runtime.reason()));
    absl::StrAppend(&text, "\n");
  }
  return text;
}

}  // namespace qaas::cli
