#pragma once

#include <string>
#include <vector>

#include "qaas/v1/event.pb.h"

namespace qaas {

/// Lower-case name of a phase as metrics and failure positions show it: "block_training". "working"
/// for a phase this build does not know.
std::string phase_name(v1::Phase phase);

/// Names of all phases a running job can be in, in order.
std::vector<std::string> all_phase_names();

}  // namespace qaas
