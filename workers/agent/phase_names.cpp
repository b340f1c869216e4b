#include "workers/agent/phase_names.h"

#include <absl/strings/ascii.h>
#include <absl/strings/strip.h>

namespace qaas {

std::string phase_name(v1::Phase phase) {
  if (phase == v1::PHASE_UNSPECIFIED || !v1::Phase_IsValid(phase)) {
    return "working";
  }
  const std::string& name = v1::Phase_Name(phase);
  return absl::AsciiStrToLower(absl::StripPrefix(name, "PHASE_"));
}

std::vector<std::string> all_phase_names() {
  std::vector<std::string> names{phase_name(v1::PHASE_UNSPECIFIED)};
  const auto* descriptor = v1::Phase_descriptor();
  for (int i = 0; i < descriptor->value_count(); ++i) {
    const auto phase = static_cast<v1::Phase>(descriptor->value(i)->number());
    if (phase != v1::PHASE_UNSPECIFIED) {
      names.push_back(phase_name(phase));
    }
  }
  return names;
}

}  // namespace qaas
