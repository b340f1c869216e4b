#include <algorithm>
#include <cmath>

#include "workers/engine/report/charts.h"
#include "workers/engine/report/svg.h"

namespace qaas::report {
namespace {

constexpr double kWidth = 720, kHeight = 270;
constexpr double kLeft = 64, kRight = 16, kTop = 10, kBottom = 44;

/// Lowest and highest finite value; low > high where there is none.
struct Range {
  double low = INFINITY, high = -INFINITY;
  std::vector<double> finite;

  void add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
    finite.push_back(value);
  }
};

/// A path through the finite points of a series; it breaks where one is missing.
std::string path_of(const LineSeries& series, const Axis& x, const Axis& y) {
  std::string path;
  bool pen_down = false;
  for (size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i) {
    if (!std::isfinite(series.x[i]) || !std::isfinite(series.y[i])) {
      pen_down = false;
      continue;
    }
    absl::StrAppend(&path, pen_down ? "L" : "M", px(x.pixel(series.x[i])), " ",
                    px(y.pixel(series.y[i])));
    pen_down = true;
  }
  return path;
}

std::string draw(const LineSeries& series, const Axis& x, const Axis& y, double radius) {
  if (series.mark == LineSeries::Mark::kPoints) {
    std::string svg;
    for (size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i) {
      if (!std::isfinite(series.x[i]) || !std::isfinite(series.y[i])) continue;
      svg += svg_dot(x.pixel(series.x[i]), y.pixel(series.y[i]), radius, series.tone,
                     absl::StrCat(series.label, ": ", number(series.y[i])));
    }
    return svg;
  }
  const bool faint = series.mark == LineSeries::Mark::kFaintLine;
  return absl::StrCat("<path d=\"", path_of(series, x, y), "\" class=\"line", faint ? " faint" : "",
                      " line-", tone_class(series.tone), "\"/>");
}

void add_to(Range& x, Range& y, const std::vector<LineSeries>& series) {
  for (const LineSeries& one : series) {
    for (const double value : one.x) x.add(value);
    for (const double value : one.y) y.add(value);
  }
}

std::string horizontal_grid(const Axis& axis, const std::string& label) {
  std::string svg;
  for (const Axis::Tick& tick : axis.ticks()) {
    const double y = axis.pixel(tick.value);
    absl::StrAppend(&svg, svg_line(kLeft, y, kWidth - kRight, y, "grid"),
                    svg_text(kLeft - 8, y + 4, "end", "tick", tick.label));
  }
  const double middle = (kTop + kHeight - kBottom) / 2;
  return absl::StrCat(svg, "<text class=\"tick\" text-anchor=\"middle\" transform=\"translate(12 ",
                      px(middle), ") rotate(-90)\">", escaped(label), "</text>");
}

}  // namespace

std::string line_chart(const LineChart& chart) {
  Range xs, ys;
  add_to(xs, ys, chart.series);
  const Axis x(Scale::kLinear, xs.low, xs.high, kLeft, kWidth - kRight);
  const Axis y(fitting_scale(ys.finite), ys.low, ys.high, kHeight - kBottom, kTop);
  std::string svg =
      open_svg(chart.text, kWidth, kHeight, "chart") + horizontal_grid(y, chart.y_label);
  for (const Axis::Tick& tick : x.ticks()) {
    svg += svg_text(x.pixel(tick.value), kHeight - kBottom + 18, "middle", "tick", tick.label);
  }
  svg += svg_text((kLeft + kWidth - kRight) / 2, kHeight - 6, "middle", "tick", chart.x_label);
  for (const LineSeries& series : chart.series) svg += draw(series, x, y, 4);
  svg += "</svg><p class=\"legend\">";
  for (const LineSeries& series : chart.series) {
    const bool points = series.mark == LineSeries::Mark::kPoints;
    const bool faint = series.mark == LineSeries::Mark::kFaintLine;
    absl::StrAppend(&svg, "<span class=\"key\"><span class=\"", points ? "key-dot" : "key-line",
                    faint ? " faint" : "", " bg-", tone_class(series.tone), "\"></span>",
                    escaped(series.label), "</span> ");
  }
  return svg + "</p>";
}

std::string sparkline(const ChartText& text, const std::vector<LineSeries>& series) {
  constexpr double kSparkWidth = 168, kSparkHeight = 56, kMargin = 5;
  Range xs, ys;
  add_to(xs, ys, series);
  const Axis x(Scale::kLinear, xs.low, xs.high, kMargin, kSparkWidth - kMargin, Ends::kData);
  const Axis y(fitting_scale(ys.finite), ys.low, ys.high, kSparkHeight - kMargin, kMargin,
               Ends::kData);
  std::string svg = open_svg(text, kSparkWidth, kSparkHeight, "spark");
  for (const LineSeries& one : series) svg += draw(one, x, y, 3);
  return svg + "</svg>";
}

std::string change_chart(const ChartText& text, const std::vector<Change>& changes,
                         const std::string& x_label, const std::string& y_label) {
  Range ys;
  for (const Change& change : changes) ys.add(change.before), ys.add(change.after);
  const Axis y(fitting_scale(ys.finite), ys.low, ys.high, kHeight - kBottom, kTop);
  std::string svg = open_svg(text, kWidth, kHeight, "chart") + horizontal_grid(y, y_label);
  const double column =
      (kWidth - kLeft - kRight) / static_cast<double>(std::max<size_t>(changes.size(), 1));
  const double radius = std::clamp(column / 5, 2.0, 5.0);
  const size_t stride = 1 + changes.size() / 28;
  for (size_t i = 0; i < changes.size(); ++i) {
    const Change& change = changes[i];
    const double x = kLeft + column * (static_cast<double>(i) + 0.5);
    const std::string label = absl::StrCat(x_label, " ", change.label, ": ");
    if (std::isfinite(change.before) && std::isfinite(change.after)) {
      svg += svg_line(x, y.pixel(change.before), x, y.pixel(change.after), "stem");
      svg += svg_dot(x, y.pixel(change.before), radius, Tone::kOriginal,
                     label + "first steps " + number(change.before));
      svg += svg_dot(x, y.pixel(change.after), radius, Tone::kFinal,
                     label + "last steps " + number(change.after));
    }
    if (i % stride == 0) {
      svg += svg_text(x, kHeight - kBottom + 18, "middle", "tick", change.label);
    }
  }
  return svg + svg_text((kLeft + kWidth - kRight) / 2, kHeight - 6, "middle", "tick", x_label) +
         "</svg>";
}

}  // namespace qaas::report
