#pragma once

namespace qaas {

/// Version of the engine, written into artifacts and checkpoints (set by CMake).
inline constexpr char kEngineVersion[] = QAAS_VERSION;

}  // namespace qaas
