#pragma once

#include <filesystem>
#include <string_view>

#include <absl/status/status.h>

/// Names and versions of what an artifact folder holds besides the source's side files.
namespace qaas {

inline constexpr char kWeightsFile[] = "model.safetensors";
inline constexpr char kConfigFile[] = "config.json";
inline constexpr char kQuantizeConfigFile[] = "quantize_config.json";
inline constexpr char kActivationFile[] = "activation_quantization.json";
inline constexpr char kManifestFile[] = "manifest.json";

/// Version of manifest.json; readers refuse a newer one. Raised when an old reader would
/// misunderstand a new folder, never reused; a folder carries the oldest that describes it.
/// 1: weights alone are quantized. 2: there is an activation_quantization.json.
inline constexpr int kManifestVersion = 2;

/// Writes `text` beside `path`, syncs it, renames it over `path`. The failing call's errno decides
/// the code (kResourceExhausted when the disk is full); `path` is untouched then.
absl::Status write_file(const std::filesystem::path& path, std::string_view text);

}  // namespace qaas
