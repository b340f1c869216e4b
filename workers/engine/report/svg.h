#pragma once

#include <string>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include "workers/engine/report/charts.h"
#include "workers/engine/report/markup.h"

/// Pieces of SVG that the charts share.
namespace qaas::report {

/// A coordinate with a tenth of a pixel.
inline std::string px(double value) { return absl::StrFormat("%.1f", value); }

/// Opens a drawing of width x height with its title and summary for screen readers. A sentence for
/// all of it, so what is inside need not be walked through. It shrinks with the page down to
/// `least_width`.
inline std::string open_svg(const ChartText& text, double width, double height,
                            const char* css_class, double least_width = 0) {
  return absl::StrCat("<svg class=\"", css_class, "\" role=\"img\" viewBox=\"0 0 ", px(width), " ",
                      px(height), "\" aria-label=\"", escaped(text.title), ". ",
                      escaped(text.summary), "\" style=\"max-width:", px(width),
                      "px;min-width:", px(least_width), "px\">");
}

/// Text anchored "start", "middle" or "end" at a point.
inline std::string svg_text(double x, double y, const char* anchor, const char* css_class,
                            const std::string& text) {
  return absl::StrCat("<text x=\"", px(x), "\" y=\"", px(y), "\" text-anchor=\"", anchor,
                      "\" class=\"", css_class, "\">", escaped(text), "</text>");
}

inline std::string svg_line(double x1, double y1, double x2, double y2, const char* css_class) {
  return absl::StrCat("<line x1=\"", px(x1), "\" y1=\"", px(y1), "\" x2=\"", px(x2), "\" y2=\"",
                      px(y2), "\" class=\"", css_class, "\"/>");
}

/// A dot that names itself when pointed at.
inline std::string svg_dot(double x, double y, double radius, Tone tone, const std::string& label) {
  return absl::StrCat("<circle cx=\"", px(x), "\" cy=\"", px(y), "\" r=\"", px(radius),
                      "\" class=\"dot fill-", tone_class(tone), "\"><title>", escaped(label),
                      "</title></circle>");
}

}  // namespace qaas::report
