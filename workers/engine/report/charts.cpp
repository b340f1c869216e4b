#include "workers/engine/report/charts.h"

#include <algorithm>
#include <cmath>

#include "workers/engine/report/svg.h"

namespace qaas::report {
namespace {

constexpr double kWidth = 720;
constexpr double kLabelWidth = 150;  // of the row labels on the left
constexpr double kLabelLetters = 24;

/// Row labels longer than their column end in an ellipsis; the whole is shown when pointed at.
std::string row_label(double y, const std::string& label) {
  std::string shown = label;
  if (label.size() > kLabelLetters) {
    size_t end = static_cast<size_t>(kLabelLetters) - 1;
    while (end > 0 && (static_cast<unsigned char>(label[end]) & 0xC0) == 0x80) --end;
    shown = label.substr(0, end) + "…";
  }
  return absl::StrCat("<g><title>", escaped(label), "</title>",
                      svg_text(kLabelWidth - 10, y, "end", "label", shown), "</g>");
}

std::string vertical_grid(const Axis& axis, double top, double bottom) {
  std::string svg;
  for (const Axis::Tick& tick : axis.ticks()) {
    const double x = axis.pixel(tick.value);
    absl::StrAppend(&svg, svg_line(x, top, x, bottom, "grid"),
                    svg_text(x, bottom + 16, "middle", "tick", tick.label));
  }
  return svg;
}

}  // namespace

std::string tone_class(Tone tone) {
  switch (tone) {
    case Tone::kOriginal:
      return "original";
    case Tone::kBaseline:
      return "baseline";
    case Tone::kStage:
      return "stage";
    case Tone::kFinal:
      return "final";
    case Tone::kForecast:
      return "forecast";
  }
  return "final";
}

std::string bar_chart(const ChartText& text, const std::vector<Bar>& bars, Scale scale,
                      double origin) {
  constexpr double kRow = 30, kTop = 6, kBar = 18, kNoteWidth = 120;
  double low = origin, high = origin;
  for (const Bar& bar : bars) {
    if (!std::isfinite(bar.value)) continue;
    low = std::min(low, bar.value);
    high = std::max(high, bar.value);
  }
  const double bottom = kTop + kRow * static_cast<double>(bars.size());
  const Axis axis(scale, low, high, kLabelWidth, kWidth - kNoteWidth);
  std::string svg =
      open_svg(text, kWidth, bottom + 24, "chart") + vertical_grid(axis, kTop, bottom);
  for (size_t i = 0; i < bars.size(); ++i) {
    const Bar& bar = bars[i];
    const double top = kTop + kRow * static_cast<double>(i) + (kRow - kBar) / 2;
    const double baseline = top + kBar - 5;
    svg += row_label(baseline, bar.label);
    double end = axis.pixel(origin);
    if (std::isfinite(bar.value)) {
      const double from = std::min(axis.pixel(origin), axis.pixel(bar.value));
      end = std::max(axis.pixel(origin), axis.pixel(bar.value));
      absl::StrAppend(&svg, "<rect x=\"", px(from), "\" y=\"", px(top), "\" width=\"",
                      px(std::max(end - from, 1.0)), "\" height=\"", px(kBar),
                      "\" rx=\"2\" class=\"fill-", tone_class(bar.tone), "\"><title>",
                      escaped(bar.label), ": ", escaped(bar.note), "</title></rect>");
    }
    svg += svg_text(end + 8, baseline, "start", "value", bar.note);
  }
  return svg + svg_line(axis.pixel(origin), kTop, axis.pixel(origin), bottom, "axis") + "</svg>";
}

std::string interval_chart(const ChartText& text, const std::vector<IntervalRow>& rows,
                           const std::string& x_label) {
  constexpr double kTop = 6, kMark = 15, kGap = 10;
  double low = INFINITY, high = -INFINITY, height = kTop;
  for (const IntervalRow& row : rows) {
    height += kGap + kMark * static_cast<double>(std::max<size_t>(row.marks.size(), 1));
    for (const Interval& mark : row.marks) {
      if (!std::isfinite(mark.low) || !std::isfinite(mark.high)) continue;
      low = std::min({low, mark.low, mark.value});
      high = std::max({high, mark.high, mark.value});
    }
  }
  const Axis axis(Scale::kLinear, low, high, kLabelWidth + 8, kWidth - 24);
  std::string svg =
      open_svg(text, kWidth, height + 42, "chart") + vertical_grid(axis, kTop, height);
  double y = kTop;
  for (const IntervalRow& row : rows) {
    const double band = kMark * static_cast<double>(std::max<size_t>(row.marks.size(), 1));
    svg += row_label(y + kGap / 2 + band / 2 + 4, row.label);
    for (size_t i = 0; i < row.marks.size(); ++i) {
      const Interval& mark = row.marks[i];
      if (!std::isfinite(mark.value)) continue;
      const double at = y + kGap / 2 + kMark * (static_cast<double>(i) + 0.5);
      if (mark.low < mark.high) {
        const std::string whisker = "whisker line-" + tone_class(mark.tone);
        svg += svg_line(axis.pixel(mark.low), at, axis.pixel(mark.high), at, whisker.c_str());
      }
      svg += svg_dot(axis.pixel(mark.value), at, 5, mark.tone, mark.label);
    }
    y += kGap + band;
    svg += svg_line(kLabelWidth + 8, y, kWidth - 24, y, "row");
  }
  return svg + svg_text((kLabelWidth + kWidth) / 2, height + 36, "middle", "tick", x_label) +
         "</svg>";
}

std::string heat_map(const HeatMap& map) {
  constexpr double kSteps = 7, kCellHeight = 28, kLeft = 92, kTop = 4;
  const auto columns = static_cast<double>(map.columns.size());
  const double cell = std::clamp((kWidth - kLeft) / std::max(columns, 1.0), 24.0, 72.0);
  std::vector<double> values;
  for (const auto& row : map.cells) {
    for (const HeatCell& c : row) {
      if (c.value && std::isfinite(*c.value)) values.push_back(*c.value);
    }
  }
  if (values.empty()) return "";
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  // Only for where a value stands between the lowest and the highest: pixels 0 to 1.
  const Scale scale = fitting_scale(values);
  const auto share = [&, low = *low, high = *high](double value) {
    if (high <= low) return 0.0;
    return scale == Scale::kLog ? std::log(value / low) / std::log(high / low)
                                : (value - low) / (high - low);
  };
  const auto step = [&](double value) {
    const double dark = map.low_is_dark ? 1 - share(value) : share(value);
    return static_cast<int>(std::clamp(std::floor(dark * kSteps), 0.0, kSteps - 1));
  };

  const double width = kLeft + cell * columns;
  const double bottom = kTop + kCellHeight * static_cast<double>(map.rows.size());
  // Too many columns to shrink keep their size, and the page scrolls.
  std::string svg = "<div class=\"scroll\">" +
                    open_svg(map.text, width, bottom + 40, "chart heat", columns > 26 ? width : 0);
  for (size_t r = 0; r < map.rows.size(); ++r) {
    const double y = kTop + kCellHeight * static_cast<double>(r);
    svg += svg_text(kLeft - 8, y + kCellHeight / 2 + 4, "end", "label", map.rows[r]);
    for (size_t c = 0; c < map.columns.size(); ++c) {
      const HeatCell& item = map.cells[r][c];
      const double x = kLeft + cell * static_cast<double>(c);
      const bool known = item.value && std::isfinite(*item.value);
      const std::string tone = known ? absl::StrCat("h", step(*item.value)) : "unknown";
      absl::StrAppend(&svg, "<g class=\"cell\"><title>", escaped(item.detail), "</title><rect x=\"",
                      px(x + 1), "\" y=\"", px(y + 1), "\" width=\"", px(cell - 2), "\" height=\"",
                      px(kCellHeight - 2), "\" rx=\"2\" class=\"", tone, "\"/>");
      if (item.marked) {
        absl::StrAppend(&svg, "<rect x=\"", px(x + 2.5), "\" y=\"", px(y + 2.5), "\" width=\"",
                        px(cell - 5), "\" height=\"", px(kCellHeight - 5),
                        "\" rx=\"2\" class=\"frame\"/>");
      }
      absl::StrAppend(&svg,
                      svg_text(x + cell / 2, y + kCellHeight / 2 + 4, "middle",
                               ("cell-text on-" + tone).c_str(), item.label),
                      "</g>");
    }
  }
  const size_t stride = map.columns.size() > 40 ? 4 : 1;
  for (size_t c = 0; c < map.columns.size(); c += stride) {
    svg += svg_text(kLeft + cell * (static_cast<double>(c) + 0.5), bottom + 16, "middle", "tick",
                    map.columns[c]);
  }
  absl::StrAppend(
      &svg, svg_text(kLeft + cell * columns / 2, bottom + 34, "middle", "tick", map.column_label),
      "</svg></div><p class=\"legend\">", number(map.low_is_dark ? *high : *low, 3), " ");
  for (int i = 0; i < static_cast<int>(kSteps); ++i) {
    absl::StrAppend(&svg, "<span class=\"step bg-h", i, "\"></span>");
  }
  return absl::StrCat(svg, " ", number(map.low_is_dark ? *low : *high, 3),
                      scale == Scale::kLog ? " (steps of equal ratio)" : "", "</p>");
}

}  // namespace qaas::report
