#pragma once

#include <string>

#include <prometheus/registry.h>

namespace qaas {

/// Version of this build: "0.1.0".
std::string build_version();

/// Adds the gauge `qaas_build_info{program, version}` with value 1.
void add_build_info(prometheus::Registry& registry, const std::string& program);

}  // namespace qaas
