#pragma once

#include <optional>
#include <string>
#include <vector>

#include "workers/engine/report/axis.h"

/// Charts as inline SVG. Labels are plain text and escaped here; colours are classes of the page's
/// style sheet (page_style.h), so that one chart suits a light and a dark page. Values that are not
/// finite are left out.
namespace qaas::report {

/// What stands around a chart: `title` is read out and shown as a heading by the page, `summary`
/// says in a sentence what it shows, for those who cannot see it.
struct ChartText {
  std::string title;
  std::string summary;
};

/// Colour of a mark, by the model or quantity it stands for.
enum class Tone { kOriginal, kBaseline, kStage, kFinal, kForecast };
/// The style sheet's class of a tone: "original", ...
std::string tone_class(Tone tone);

struct Bar {
  std::string label;
  double value = 0;
  std::string note;  ///< written behind the bar
  Tone tone = Tone::kStage;
};
/// Horizontal bars from `origin`, which belongs to the axis.
std::string bar_chart(const ChartText& text, const std::vector<Bar>& bars, Scale scale,
                      double origin);

struct LineSeries {
  enum class Mark { kFaintLine, kLine, kPoints };
  std::string label;
  std::vector<double> x, y;
  Mark mark = Mark::kLine;
  Tone tone = Tone::kFinal;
};
struct LineChart {
  ChartText text;
  std::vector<LineSeries> series;
  std::string x_label, y_label;
};
/// Lines and points over one pair of axes; y is logarithmic where it spans a factor of 10.
std::string line_chart(const LineChart& chart);

/// A small line chart without axes or labels.
std::string sparkline(const ChartText& text, const std::vector<LineSeries>& series);

struct Change {
  std::string label;  ///< below its column
  double before = 0, after = 0;
};
/// One column per item, from a mark at `before` to one at `after`.
std::string change_chart(const ChartText& text, const std::vector<Change>& changes,
                         const std::string& x_label, const std::string& y_label);

struct Interval {
  double value = 0;
  double low = 0, high = 0;  ///< equal to value: no whisker
  Tone tone = Tone::kFinal;
  std::string label;  ///< shown when pointed at
};
struct IntervalRow {
  std::string label;
  std::vector<Interval> marks;
};
/// Rows of points with whiskers over one axis.
std::string interval_chart(const ChartText& text, const std::vector<IntervalRow>& rows,
                           const std::string& x_label);

struct HeatCell {
  std::optional<double> value;  ///< none: an empty cell
  std::string label;            ///< in the cell
  std::string detail;           ///< shown when pointed at
  bool marked = false;          ///< drawn with a frame
};
struct HeatMap {
  ChartText text;
  std::vector<std::string> rows, columns;
  std::vector<std::vector<HeatCell>> cells;  ///< [rows][columns]
  std::string column_label;
  bool low_is_dark = false;  ///< dark cells are those that matter: high ones unless this is set
};
/// Cells in seven steps of one hue, over the logarithm where values span a factor of 10, and the
/// legend of the steps.
std::string heat_map(const HeatMap& map);

}  // namespace qaas::report
