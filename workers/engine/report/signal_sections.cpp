#include <algorithm>
#include <map>

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

#include "workers/engine/report/charts.h"
#include "workers/engine/report/markup.h"
#include "workers/engine/report/sections.h"

namespace qaas::report {
namespace {

/// A projection's place in the maps: "model.layers.3.self_attn.q_proj" is block 3, "q_proj".
struct Place {
  int block = 0;
  std::string name;
};

Place place_of(const std::string& projection) {
  constexpr std::string_view kPrefix = "model.layers.";
  std::string_view rest = projection;
  if (rest.starts_with(kPrefix)) rest.remove_prefix(kPrefix.size());
  const size_t dot = rest.find('.');
  Place place;
  if (dot == std::string_view::npos ||
      !absl::SimpleAtoi(std::string(rest.substr(0, dot)), &place.block)) {
    return {.name = projection};
  }
  const size_t last = rest.rfind('.');
  place.name = std::string(rest.substr(last + 1));
  return place;
}

/// One measurement of each projection, drawn as a map.
struct Measure {
  const char* title;
  const char* meaning;
  double (*value)(const v1::ProjectionSignal&);
  bool low_is_dark;
};

double ratio(double a, double b) { return b > 0 ? a / b : 0; }

const Measure kSensitivity = {
    "Loss sensitivity",
    "KL divergence from the original, in nats per token, when this projection alone is quantized. "
    "The number in a cell is its bits.",
    [](const v1::ProjectionSignal& s) { return s.loss_sensitivity(); }, false};

const Measure kMeasures[] = {
    {"SQNR of the weight, dB", "How far quantization error lies below the weight; less is worse.",
     [](const v1::ProjectionSignal& s) { return s.weight_sqnr_db(); }, true},
    {"SQNR of the output, dB", "The same for the projection’s output on the original’s input.",
     [](const v1::ProjectionSignal& s) { return s.output_sqnr_db(); }, true},
    {"Gradient norm, quantized ÷ original",
     "Frobenius norm of the loss’s gradient by the weight; far above 1, training pulls hard here.",
     [](const v1::ProjectionSignal& s) {
       return ratio(s.gradient_norm_quantized(), s.gradient_norm_original());
     },
     false},
    {"Kurtosis of the input",
     "3 for a Gaussian; large values mean outliers, which coarse "
     "activation scales handle badly.",
     [](const v1::ProjectionSignal& s) { return s.input_kurtosis(); }, false},
};

std::string detail_of(const v1::ProjectionSignal& s) {
  return absl::StrCat(
      s.projection(), "\n", s.bits(), " bits", s.frozen() ? ", frozen" : "", "\nsensitivity ",
      number(s.loss_sensitivity(), 3), "\nSQNR weight ", number(s.weight_sqnr_db(), 3),
      " dB, output ", number(s.output_sqnr_db(), 3), " dB\ngradient norm ",
      number(s.gradient_norm_original(), 3), " → ", number(s.gradient_norm_quantized(), 3),
      s.has_gradient_norm_trained() ? " → " + number(s.gradient_norm_trained(), 3) : "",
      "\ninput kurtosis ", number(s.input_kurtosis(), 3));
}

HeatMap map_of(const v1::SignalReport& signals, const Measure& measure, bool label_bits) {
  HeatMap map{.text = {measure.title, measure.meaning},
              .column_label = "block",
              .low_is_dark = measure.low_is_dark};
  std::map<int, size_t> columns;
  for (const v1::ProjectionSignal& s : signals.projections()) {
    const Place place = place_of(s.projection());
    columns.emplace(place.block, 0);
    if (std::find(map.rows.begin(), map.rows.end(), place.name) == map.rows.end()) {
      map.rows.push_back(place.name);
    }
  }
  for (auto& [block, column] : columns) {
    column = map.columns.size();
    map.columns.push_back(std::to_string(block));
  }
  map.cells.assign(map.rows.size(), std::vector<HeatCell>(map.columns.size()));
  for (const v1::ProjectionSignal& s : signals.projections()) {
    const Place place = place_of(s.projection());
    const auto row =
        size_t(std::find(map.rows.begin(), map.rows.end(), place.name) - map.rows.begin());
    const double value = measure.value(s);
    map.cells[row][columns[place.block]] = {
        .value = value,
        .label = label_bits ? (s.bits() > 0 ? std::to_string(s.bits()) : "–") : number(value, 2),
        .detail = detail_of(s),
        .marked = s.frozen()};
  }
  return map;
}

bool measured(const v1::SignalReport& signals, const Measure& measure) {
  return std::any_of(signals.projections().begin(), signals.projections().end(),
                     [&](const v1::ProjectionSignal& s) { return measure.value(s) != 0; });
}

std::string numbers_table(const v1::SignalReport& signals) {
  std::string html =
      "<details><summary>All numbers</summary><div class=\"table\"><table><thead><tr>"
      "<th scope=\"col\">Projection</th><th scope=\"col\">bits</th><th "
      "scope=\"col\">sensitivity</th>"
      "<th scope=\"col\">SQNR w</th><th scope=\"col\">SQNR out</th><th scope=\"col\">grad "
      "original</th><th scope=\"col\">grad quantized</th><th scope=\"col\">grad trained</th><th "
      "scope=\"col\">kurtosis</th><th scope=\"col\">input σ²</th><th scope=\"col\">output σ² "
      "original</th><th scope=\"col\">output σ² quantized</th></tr></thead><tbody>";
  for (const v1::ProjectionSignal& s : signals.projections()) {
    absl::StrAppend(&html, "<tr><th scope=\"row\">", escaped(s.projection()),
                    s.frozen() ? " <small>frozen</small>" : "", "</th>");
    absl::StrAppend(&html, "<td>", s.bits(), "</td>");
    for (const double value : {s.loss_sensitivity(), s.weight_sqnr_db(), s.output_sqnr_db(),
                               s.gradient_norm_original(), s.gradient_norm_quantized()}) {
      absl::StrAppend(&html, "<td>", number(value, 3), "</td>");
    }
    absl::StrAppend(&html, "<td>",
                    s.has_gradient_norm_trained() ? number(s.gradient_norm_trained(), 3) : "–",
                    "</td>");
    for (const double value : {s.input_kurtosis(), s.input_variance(), s.output_variance_original(),
                               s.output_variance_quantized()}) {
      absl::StrAppend(&html, "<td>", number(value, 3), "</td>");
    }
    html += "</tr>";
  }
  return html + "</tbody></table></div></details>";
}

}  // namespace

std::string signal_section(const v1::RunReport& run) {
  const v1::SignalReport& signals = run.signals();
  if (signals.projections().empty()) return "";
  const bool frozen = std::any_of(signals.projections().begin(), signals.projections().end(),
                                  [](const v1::ProjectionSignal& s) { return s.frozen(); });
  std::string html = absl::StrCat(
      "<section class=\"long\"><h2>Projections</h2><p class=\"lead\">Measured on ",
      whole(signals.windows()), " calibration windows of ", whole(signals.sequence_length()),
      " tokens. Cells near the right end of a legend need care; point at one for its numbers.",
      frozen ? " <span class=\"key-frame\"></span>A framed projection was frozen: training held it "
               "at its post-training values."
             : "",
      "</p>");
  if (measured(signals, kSensitivity)) {
    absl::StrAppend(&html, "<h3>", kSensitivity.title, "</h3><p class=\"lead\">",
                    kSensitivity.meaning, "</p>", heat_map(map_of(signals, kSensitivity, true)));
  }
  for (const Measure& measure : kMeasures) {
    if (!measured(signals, measure)) continue;
    absl::StrAppend(&html, "<h3>", measure.title, "</h3><p class=\"lead\">", measure.meaning,
                    "</p>", heat_map(map_of(signals, measure, false)));
  }
  return absl::StrCat(html, numbers_table(signals), "</section>");
}

std::string automatic_section(const v1::RunReport& run) {
  if (!run.has_automatic()) return "";
  const v1::AutomaticDecision& choice = run.automatic();
  std::string html = "<section><h2>Automatic choice</h2>";
  if (!choice.bits().empty()) {
    std::map<int, int> count_of_bits;
    for (const auto& [projection, bits] : choice.bits()) ++count_of_bits[bits];
    std::string widths;
    for (const auto& [bits, count] : count_of_bits) {
      absl::StrAppend(&widths, widths.empty() ? "" : ", ", whole(count), " at ", bits, " bits");
    }
    absl::StrAppend(&html, "<p>Mixed precision, ", number(choice.average_bits(), 3),
                    " bits per weight on average, scales included: ", widths, ".</p>");
  }
  if (choice.predicted_loss_rise() != 0 || choice.uniform_loss_rise() != 0) {
    std::vector<Bar> bars = {{.label = "This choice",
                              .value = choice.predicted_loss_rise(),
                              .note = number(choice.predicted_loss_rise(), 3),
                              .tone = Tone::kFinal}};
    if (choice.uniform_loss_rise() != 0) {
      bars.push_back({.label = "One width for all",
                      .value = choice.uniform_loss_rise(),
                      .note = number(choice.uniform_loss_rise(), 3),
                      .tone = Tone::kOriginal});
    }
    absl::StrAppend(&html,
                    "<p class=\"lead\">Predicted rise of the loss before training, nats per token, "
                    "at the same size: the sum of single sensitivities.</p>",
                    bar_chart({"Predicted rise of the loss", "This choice against one width"}, bars,
                              Scale::kLinear, 0));
  }
  if (!choice.frozen().empty()) {
    absl::StrAppend(&html, "<details><summary>", whole(choice.frozen_size()),
                    " projections frozen, most vulnerable first</summary><ol>");
    for (const std::string& name : choice.frozen()) {
      absl::StrAppend(&html, "<li>", escaped(name), "</li>");
    }
    html += "</ol></details>";
  }
  return html + "</section>";
}

}  // namespace qaas::report
