#pragma once

#include <string>

#include "qaas/v1/report.pb.h"

namespace qaas {

/// The report as one page that needs nothing else: no script, no outside resource; drawings are
/// inline SVG, the style suits screens light and dark, and paper. Sections without anything to show
/// are left out. The page is well-formed XML too. All text of `run` is escaped; numbers that are
/// not finite show as "–". Thread-safe.
std::string report_html(const v1::RunReport& run);

}  // namespace qaas
