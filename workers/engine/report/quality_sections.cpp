#include <cmath>

#include <absl/strings/str_cat.h>

#include "workers/engine/report/charts.h"
#include "workers/engine/report/markup.h"
#include "workers/engine/report/sections.h"

namespace qaas::report {
namespace {

/// "0.647 ± 0.008", the error left out where there is none.
std::string with_error(const std::string& value, double error) {
  if (!(error > 0)) return value;
  return absl::StrCat(value, " <small>± ", number(error, 2), "</small>");
}

struct Scored {
  std::string name;
  const v1::ModelScore& score;
  Tone tone;
};

/// The models in the order in which the job made them. The last stage is what was written, so it
/// stands as the final model only.
std::vector<Scored> models_of(const v1::Evaluation& e) {
  std::vector<Scored> models;
  if (e.has_original()) models.push_back({"Original", e.original(), Tone::kOriginal});
  if (e.has_round_to_nearest()) {
    models.push_back({"Round to nearest", e.round_to_nearest(), Tone::kBaseline});
  }
  for (int i = 0; i + 1 < e.stages_size(); ++i) {
    models.push_back(
        {"after " + stage_name(e.stages(i).stage()), e.stages(i).score(), Tone::kStage});
  }
  if (e.has_quantized()) {
    models.push_back({"Final", e.quantized(), Tone::kFinal});
  }
  return models;
}

std::string score_row(const Scored& model) {
  const v1::ModelScore& score = model.score;
  const bool original = model.tone == Tone::kOriginal;
  return absl::StrCat(
      "<tr", model.tone == Tone::kFinal ? " class=\"strong\"" : "", "><th scope=\"row\">",
      escaped(model.name), "</th><td>", number(score.perplexity()), "</td><td>",
      with_error(number(score.loss()), score.loss_stderr()), "</td><td>",
      original ? "–"
               : with_error(signed_number(score.loss_difference()), score.loss_difference_stderr()),
      "</td><td>", original ? "–" : number(score.kl_divergence(), 3), "</td><td>",
      original || score.top1_agreement() == 0 ? "–" : percent(score.top1_agreement()),
      "</td></tr>");
}

std::string score_table(const std::vector<Scored>& models) {
  std::string html =
      "<div class=\"table\"><table><thead><tr><th scope=\"col\">Model</th><th "
      "scope=\"col\">Perplexity</th><th scope=\"col\">Loss</th><th "
      "scope=\"col\">Difference</th><th "
      "scope=\"col\">KL</th><th scope=\"col\">Top-1</th></tr></thead><tbody>";
  for (const Scored& model : models) html += score_row(model);
  return html + "</tbody></table></div>";
}

std::string further_texts(const v1::Evaluation& e) {
  if (e.texts_size() == 0) return "";
  std::string html =
      "<h3>Further texts</h3><div class=\"table\"><table><thead><tr><th scope=\"col\">Text</th><th "
      "scope=\"col\">Original</th><th scope=\"col\">Rounded</th><th scope=\"col\">Final</th><th "
      "scope=\"col\">Difference</th><th scope=\"col\">KL</th><th scope=\"col\">Top-1</th></tr>"
      "</thead><tbody>";
  bool any_same = false;
  for (const v1::TextScore& text : e.texts()) {
    any_same = any_same || text.same_source();
    const v1::ModelScore& final = text.quantized();
    absl::StrAppend(
        &html, "<tr><th scope=\"row\">", escaped(text.dataset()),
        text.same_source() ? " <small>*</small>" : "", "<br/><small>", whole(text.windows()), " × ",
        whole(text.sequence_length()), " tokens</small></th><td>",
        number(text.original().perplexity()), "</td><td>",
        text.has_round_to_nearest() ? number(text.round_to_nearest().perplexity()) : "–",
        "</td><td><strong>", number(final.perplexity()), "</strong></td><td>",
        with_error(signed_number(final.loss_difference()), final.loss_difference_stderr()),
        "</td><td>", number(final.kl_divergence(), 3), "</td><td>",
        final.top1_agreement() > 0 ? percent(final.top1_agreement()) : "–", "</td></tr>");
  }
  html += "</tbody></table></div>";
  if (any_same) html += "<p class=\"legend\">* from the same source as the calibration text</p>";
  return html;
}

Interval accuracy_mark(const std::string& name, Tone tone, double value, double error) {
  return {.value = 100 * value,
          .low = 100 * (value - error),
          .high = 100 * (value + error),
          .tone = tone,
          .label = absl::StrCat(name, ": ", percent(value), " ± ", percent(error))};
}

/// In per cent: "31.2 ± 0.95".
std::string accuracy_cell(double value, double error) {
  return with_error(number(100 * value, 3), 100 * error);
}

/// Predicted and measured rise of the loss.
IntervalRow forecast_row(const std::string& label, const v1::Prediction& prediction,
                         double measured, double measured_error, Tone tone) {
  const double predicted = prediction.error();
  const double band = predicted * prediction.relative_error();
  return {label,
          {{.value = predicted,
            .low = predicted - band,
            .high = predicted + band,
            .tone = Tone::kForecast,
            .label = absl::StrCat("forecast: ", number(predicted, 3))},
           {.value = measured,
            .low = measured - measured_error,
            .high = measured + measured_error,
            .tone = tone,
            .label = absl::StrCat("measured: ", number(measured, 3))}}};
}

std::string forecast_notes(const std::string& label, const v1::Prediction& prediction) {
  if (!prediction.has_error()) return "";
  std::string html =
      absl::StrCat("<li><strong>", label, "</strong>: ", escaped(prediction.source()));
  if (!prediction.training_regime().empty()) {
    absl::StrAppend(&html, ", fitted on ", escaped(prediction.training_regime()));
  }
  if (prediction.extrapolated()) html += "; <strong>used outside its range</strong>";
  html += ".";
  for (const std::string& note : prediction.notes()) absl::StrAppend(&html, " ", escaped(note));
  return html + "</li>";
}

}  // namespace

std::string quality_section(const v1::RunReport& run) {
  if (!run.has_evaluation()) return "";
  const v1::Evaluation& e = run.evaluation();
  const std::vector<Scored> models = models_of(e);
  std::vector<Bar> bars;
  for (const Scored& model : models) {
    bars.push_back({.label = model.name,
                    .value = model.score.perplexity(),
                    .note = number(model.score.perplexity()),
                    .tone = model.tone});
  }
  std::string html = absl::StrCat(
      "<section><h2>Quality</h2><p class=\"lead\">Perplexity on ", escaped(e.dataset()), ", ",
      whole(e.windows()), " windows of ", whole(e.sequence_length()),
      " tokens; lower is better. The axis is logarithmic from 1, so a bar is as long as the "
      "model’s "
      "loss. The final model is the one on disk, read back.</p>",
      bar_chart({"Perplexity of each model",
                 absl::StrCat("Original ", number(e.original().perplexity()), ", final ",
                              number(e.quantized().perplexity()))},
                bars, Scale::kLog, 1));
  if (e.same_source()) {
    html +=
        "<p class=\"note\">Calibration and evaluation text come from the same source. Training "
        "adapts "
        "a model to its text, which lowers the perplexity on it without making the model more like "
        "the original: read <strong>KL</strong> and <strong>Top-1</strong>, which compare with the "
        "original itself.</p>";
  }
  return absl::StrCat(html, score_table(models),
                      "<p class=\"legend\">Loss in nats per token; difference from the original on "
                      "the same windows; KL: divergence of the next-token distribution from the "
                      "original’s; Top-1: share of tokens whose likeliest successor is the "
                      "original’s. ± one standard error.</p>",
                      further_texts(e), "</section>");
}

std::string task_section(const v1::RunReport& run) {
  const v1::Evaluation& e = run.evaluation();
  if (e.tasks_size() == 0) return "";
  std::vector<IntervalRow> rows;
  std::string body;
  for (const v1::TaskScore& task : e.tasks()) {
    IntervalRow& row = rows.emplace_back(IntervalRow{.label = task.task()});
    absl::StrAppend(&body, "<tr><th scope=\"row\">", escaped(task.task()), "<br/><small>",
                    whole(task.questions()), " questions</small></th>");
    const auto add = [&](const char* name, bool present, const v1::TaskAccuracy& accuracy,
                         Tone tone) {
      if (!present) {
        body += "<td>–</td><td>–</td>";
        return;
      }
      row.marks.push_back(accuracy_mark(name, tone, accuracy.acc(), accuracy.acc_stderr()));
      absl::StrAppend(&body, "<td>", accuracy_cell(accuracy.acc(), accuracy.acc_stderr()),
                      "</td><td>", accuracy_cell(accuracy.acc_norm(), accuracy.acc_norm_stderr()),
                      "</td>");
    };
    add("Original", task.has_original(), task.original(), Tone::kOriginal);
    add("Round to nearest", task.has_round_to_nearest(), task.round_to_nearest(), Tone::kBaseline);
    add("Final", task.has_quantized(), task.quantized(), Tone::kFinal);
    body += "</tr>";
  }
  return absl::StrCat(
      "<section><h2>Tasks</h2><p class=\"lead\">Zero-shot multiple choice: share of questions "
      "answered rightly, ± one standard error. Points whose whiskers overlap do not differ "
      "measurably.</p>",
      interval_chart({"Accuracy by task", "One row per task; original, rounded and final model"},
                     rows, "acc, %"),
      "<p class=\"legend\"><span class=\"key\"><span class=\"key-dot bg-original\"></span>Original"
      "</span> <span class=\"key\"><span class=\"key-dot bg-baseline\"></span>Round to "
      "nearest</span> "
      "<span class=\"key\"><span class=\"key-dot bg-final\"></span>Final</span></p>"
      "<div class=\"table tight\"><table><thead><tr><th rowspan=\"2\" scope=\"col\">Task</th>"
      "<th colspan=\"2\" scope=\"colgroup\">Original</th><th colspan=\"2\" "
      "scope=\"colgroup\">Rounded</th><th colspan=\"2\" scope=\"colgroup\">Final</th></tr><tr>",
      "<th scope=\"col\">acc, %</th><th scope=\"col\">norm, %</th><th scope=\"col\">acc, %</th><th "
      "scope=\"col\">norm, %</th><th scope=\"col\">acc, %</th><th scope=\"col\">norm, %</th></tr>"
      "</thead><tbody>",
      body, "</tbody></table></div></section>");
}

std::string forecast_section(const v1::RunReport& run) {
  const v1::Forecast& forecast = run.job().forecast();
  const v1::Evaluation& e = run.evaluation();
  if (!run.job().has_forecast() || !run.has_evaluation()) return "";
  std::vector<IntervalRow> rows;
  if (forecast.quantized().has_error()) {
    rows.push_back(forecast_row("this job", forecast.quantized(), e.measured_error(),
                                e.quantized().loss_difference_stderr(), Tone::kFinal));
  }
  if (forecast.round_to_nearest().has_error() && e.has_round_to_nearest()) {
    rows.push_back(forecast_row("plain rounding", forecast.round_to_nearest(),
                                e.round_to_nearest().loss() - e.original().loss(),
                                e.round_to_nearest().loss_difference_stderr(), Tone::kBaseline));
  }
  std::string html =
      "<section><h2>Forecast against measured</h2><p class=\"lead\">What published scaling laws "
      "said before the job ran, and what was measured.</p>";
  if (!rows.empty()) {
    absl::StrAppend(
        &html,
        interval_chart({"Rise of the loss, forecast and measured",
                        "One row for this job and one for plain rounding"},
                       rows, "rise of the loss over the original, nats per token"),
        "<p class=\"legend\"><span class=\"key\"><span class=\"key-dot "
        "bg-forecast\"></span>Forecast, "
        "with the law’s published error</span> <span class=\"key\"><span class=\"key-dot "
        "bg-final\"></span>Measured</span> <span class=\"key\"><span class=\"key-dot "
        "bg-baseline\"></span>Measured, plain rounding</span></p>");
  }
  absl::StrAppend(&html,
                  "<div class=\"table\"><table><thead><tr><th scope=\"col\"></th><th "
                  "scope=\"col\">Forecast</th><th scope=\"col\">Measured</th></tr></thead><tbody>");
  for (const IntervalRow& row : rows) {
    absl::StrAppend(&html, "<tr><th scope=\"row\">Rise of the loss, ", escaped(row.label),
                    "</th><td>", number(row.marks[0].value, 3), "</td><td>",
                    number(row.marks[1].value, 3), "</td></tr>");
  }
  absl::StrAppend(&html, "<tr><th scope=\"row\">Weight file</th><td>",
                  byte_count(forecast.artifact_bytes()), "</td><td>",
                  byte_count(e.artifact_bytes()), "</td></tr></tbody></table></div>");
  const std::string notes = forecast_notes("This job", forecast.quantized()) +
                            forecast_notes("Round to nearest", forecast.round_to_nearest());
  if (!notes.empty()) {
    absl::StrAppend(&html, "<details><summary>Laws and assumptions</summary><ul>", notes,
                    "</ul></details>");
  }
  return html + "</section>";
}

}  // namespace qaas::report
