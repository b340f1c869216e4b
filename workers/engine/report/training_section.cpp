#include <algorithm>
#include <cmath>

#include <absl/strings/str_cat.h>

#include "workers/engine/report/charts.h"
#include "workers/engine/report/markup.h"
#include "workers/engine/report/sections.h"
#include "workers/engine/report/training_curve.h"

namespace qaas::report {
namespace {

constexpr int kPoints = 400;      // of a drawn curve; more would not be seen
constexpr int kSparkPoints = 96;  // of a small one

LineSeries raw_line(const v1::TrainingCurve& curve) {
  LineSeries line{.label = "each step", .mark = LineSeries::Mark::kFaintLine, .tone = Tone::kFinal};
  for (int i = 0; i < std::min(curve.steps_size(), curve.losses_size()); ++i) {
    line.x.push_back(static_cast<double>(curve.steps(i)));
    line.y.push_back(curve.losses(i));
  }
  return line;
}

/// The mean over a window of about a twentieth of the curve, centred.
LineSeries smooth_line(const LineSeries& raw) {
  LineSeries line{.label = "running mean", .x = raw.x, .tone = Tone::kFinal};
  const auto count = static_cast<int64_t>(raw.y.size());
  const int64_t reach = std::max<int64_t>(1, count / 40);
  for (int64_t i = 0; i < count; ++i) {
    // Symmetric, so that the ends do not lean towards the middle.
    const int64_t r = std::min({reach, i, count - 1 - i});
    double sum = 0;
    for (int64_t k = i - r; k <= i + r; ++k) sum += raw.y[size_t(k)];
    line.y.push_back(sum / static_cast<double>(2 * r + 1));
  }
  return line;
}

/// Held-out losses at the ends of the epochs.
LineSeries validation_points(const v1::TrainingCurve& curve) {
  LineSeries points{
      .label = "held-out windows", .mark = LineSeries::Mark::kPoints, .tone = Tone::kBaseline};
  const int epochs = curve.validation_losses_size() - 1;
  const double last =
      curve.steps_size() > 0 ? static_cast<double>(curve.steps(curve.steps_size() - 1)) : 1;
  for (int i = 0; i <= epochs; ++i) {
    points.x.push_back(epochs > 0 ? last * i / epochs : last);
    points.y.push_back(curve.validation_losses(i));
  }
  return points;
}

std::string throughput(const v1::TrainingCurve& curve) {
  if (curve.seconds() <= 0) return "";
  return absl::StrCat(duration(curve.seconds()), " at ", rounded(curve.tokens_per_second()),
                      " tokens/s");
}

std::string kept_epoch(const v1::TrainingCurve& curve) {
  const int epochs = curve.validation_losses_size() - 1;
  if (epochs < 1 || curve.kept_epoch() >= epochs) return "";
  return curve.kept_epoch() == 0 ? "kept the start"
                                 : absl::StrCat("kept epoch ", curve.kept_epoch());
}

std::string spark_figure(const v1::TrainingCurve& curve) {
  const double before = first_steps_loss(curve), after = last_steps_loss(curve);
  const std::string title = absl::StrCat("Block ", curve.block());
  std::vector<LineSeries> series = {raw_line(thinned(curve, kSparkPoints))};
  series.front().mark = LineSeries::Mark::kLine;
  if (curve.validation_losses_size() > 0) series.push_back(validation_points(curve));
  const std::string kept = kept_epoch(curve);
  return absl::StrCat(
      "<figure>",
      sparkline({title, absl::StrCat("Loss from ", number(before), " to ", number(after))}, series),
      "<figcaption><b>", title, "</b> ", number(before, 3), " → ", number(after, 3),
      before > 0 ? absl::StrCat(" (", percent(after / before - 1, 0), ")") : "",
      kept.empty() ? "" : "<br/>" + kept, "</figcaption></figure>");
}

std::string block_stage(const std::vector<const v1::TrainingCurve*>& blocks) {
  if (blocks.empty()) return "";
  std::vector<Change> changes;
  double seconds = 0;
  int64_t tokens = 0;
  std::string sparks;
  for (const v1::TrainingCurve* curve : blocks) {
    changes.push_back({.label = std::to_string(curve->block()),
                       .before = first_steps_loss(*curve),
                       .after = last_steps_loss(*curve)});
    seconds += curve->seconds();
    tokens += curve->tokens();
    sparks += spark_figure(*curve);
  }
  std::string figures = seconds > 0 ? absl::StrCat(" ", duration(seconds), ", ", whole(tokens),
                                                   " token passes through one block, ",
                                                   rounded(double(tokens) / seconds), " a second.")
                                    : "";
  return absl::StrCat(
      "<h3>", escaped(stage_name(blocks.front()->stage())),
      ": loss per block</h3><p class=\"lead\">Mean squared error against the original block’s "
      "output, mean of the first and of the last steps.",
      figures, "</p>",
      change_chart({"Loss per block before and after training",
                    absl::StrCat(blocks.size(), " blocks, each with its first and last loss")},
                   changes, "block", "loss"),
      "<p class=\"legend\"><span class=\"key\"><span class=\"key-dot bg-original\"></span>first "
      "steps</span> <span class=\"key\"><span class=\"key-dot bg-final\"></span>last "
      "steps</span></p>"
      "<details",
      blocks.size() <= 16 ? " open=\"open\"" : "",
      "><summary>Loss per step of each block</summary><div class=\"sparks\">", sparks,
      "</div></details>");
}

std::string end_to_end_stage(const v1::TrainingCurve& curve) {
  const LineSeries raw = raw_line(thinned(curve, kPoints));
  LineChart chart{.text = {stage_name(curve.stage()) + ": loss per step",
                           absl::StrCat("From ", number(first_steps_loss(curve)), " to ",
                                        number(last_steps_loss(curve)))},
                  .series = {raw, smooth_line(raw)},
                  .x_label = "step",
                  .y_label = "loss"};
  if (curve.validation_losses_size() > 0) chart.series.push_back(validation_points(curve));
  std::string facts =
      absl::StrCat(number(first_steps_loss(curve)), " → ", number(last_steps_loss(curve)), " over ",
                   whole(curve.losses_size()), " steps");
  for (const std::string& fact : {curve.tokens() > 0 ? whole(curve.tokens()) + " token passes" : "",
                                  throughput(curve), kept_epoch(curve)}) {
    if (!fact.empty()) absl::StrAppend(&facts, "; ", fact);
  }
  return absl::StrCat("<h3>", escaped(chart.text.title), "</h3><p class=\"lead\">", facts, ".</p>",
                      line_chart(chart));
}

}  // namespace

std::string training_section(const v1::RunReport& run) {
  if (run.curves().empty()) return "";
  std::string html = "<section class=\"long\"><h2>Training</h2>";
  // Block curves that follow one another are one stage.
  std::vector<const v1::TrainingCurve*> blocks;
  for (const v1::TrainingCurve& curve : run.curves()) {
    if (curve.losses().empty()) continue;
    if (curve.has_block()) {
      blocks.push_back(&curve);
      continue;
    }
    html += block_stage(blocks);
    blocks.clear();
    html += end_to_end_stage(curve);
  }
  return html + block_stage(blocks) + "</section>";
}

}  // namespace qaas::report
