#include "telemetry/build_info.h"

#include <prometheus/gauge.h>

namespace qaas {

std::string build_version() { return QAAS_VERSION; }

void add_build_info(prometheus::Registry& registry, const std::string& program) {
  prometheus::BuildGauge()
      .Name("qaas_build_info")
      .Help("Always 1; the labels say which program and version runs.")
      .Register(registry)
      .Add({{"program", program}, {"version", build_version()}})
      .Set(1);
}

}  // namespace qaas
