#include "workers/engine/report/report_html.h"

#include <map>

#include <absl/strings/str_cat.h>

#include "workers/engine/report/markup.h"
#include "workers/engine/report/page_style.h"
#include "workers/engine/report/report_files.h"
#include "workers/engine/report/sections.h"

namespace qaas {
namespace report {

std::string spec_section(const v1::RunReport& run) {
  const absl::StatusOr<std::string> spec = report_json(run.job().spec());
  std::string html = absl::StrCat(
      "<section class=\"long\"><h2>Job</h2><details><summary>Spec as it ran, defaults filled in"
      "</summary><pre>",
      escaped(spec.ok() ? *spec : spec.status().ToString()), "</pre></details>");
  if (!run.host().empty() || !run.job().model_digest().empty()) {
    html += "<details><summary>Where it ran</summary><div class=\"table\"><table><tbody>";
    const auto row = [&](std::string_view name, std::string_view value) {
      absl::StrAppend(&html, "<tr><th scope=\"row\">", escaped(name), "</th><td>", escaped(value),
                      "</td></tr>");
    };
    // A map's own order differs from run to run.
    const std::map<std::string, std::string> host(run.host().begin(), run.host().end());
    for (const auto& [name, value] : host) row(name, value);
    if (!run.job().model_digest().empty()) row("model SHA-256", run.job().model_digest());
    html += "</tbody></table></div></details>";
  }
  return html + "</section>";
}

}  // namespace report

std::string report_html(const v1::RunReport& run) {
  const std::string title =
      absl::StrCat(report::model_name(run), " · ", report::method_name(run.job().spec().method()));
  return absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\"/><title>",
      report::escaped(title), "</title><style>", report::kPageStyle,
      "</style></head><body><main>\n", report::head_section(run), "\n",
      report::quality_section(run), "\n", report::task_section(run), "\n",
      report::forecast_section(run), "\n", report::training_section(run), "\n",
      report::signal_section(run), "\n", report::automatic_section(run), "\n",
      report::spec_section(run),
      "<footer>The same numbers in full: report.json.</footer></main></body></html>\n");
}

}  // namespace qaas
