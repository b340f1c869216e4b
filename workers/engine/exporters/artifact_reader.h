#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/model_config.h"
#include "storage/checkpoint/safetensors.h"
#include "workers/engine/exporters/activation_file.h"
#include "workers/engine/exporters/gptq.h"
#include "workers/engine/exporters/gptq_config.h"

namespace qaas {

/// An artifact folder as ArtifactWriter writes it, opened and checked: everything an evaluation
/// needs comes from the files. The weights are mapped; codes are unpacked when asked for.
/// Thread-safe.
class ArtifactReader {
 public:
  /// kNotFound, or kInvalidArgument naming the file and what is wrong: a manifest of a newer
  /// version or one whose file list disagrees with the folder (a folder without manifest is
  /// accepted: it is written last), a quantization_config that is not this layout or differs from
  /// quantize_config.json, a tensor that is missing, unknown, or of another type or shape.
  static absl::StatusOr<ArtifactReader> open(const std::filesystem::path& folder);

  const ModelConfig& config() const { return config_; }

  /// Grid of each projection; bits 0: it is in full precision, as tensor(name + ".weight").
  const GptqGrids& grids() const { return grids_; }

  /// The quantized projection `name`; grids() must give it bits. kInvalidArgument, naming it, for
  /// values that are not of this layout (see unpack_gptq). "lm_head" is among them where the head
  /// is quantized; where it is not it has no grid.
  absl::StatusOr<QuantizedWeight> projection(const std::string& name) const;

  /// How projections' inputs are quantized; a projection whose input is not is absent.
  const ActivationQuantizers& activations() const { return activations_; }

  /// A tensor in floating point: any of expected_tensors(config()) that is not a quantized
  /// projection. Valid as long as the reader.
  const TensorView& tensor(const std::string& name) const;

  /// manifest.json; nullopt where there is none.
  const std::optional<nlohmann::json>& manifest() const { return manifest_; }

  int64_t weight_bytes() const { return weights_.file_size(); }

  /// Reads every file that the manifest names. kInvalidArgument names one whose SHA-256 differs;
  /// kFailedPrecondition without a manifest.
  absl::Status verify_digests() const;

 private:
  ArtifactReader(std::filesystem::path folder, SafetensorsFile weights)
      : folder_(std::move(folder)), weights_(std::move(weights)) {}

  absl::Status read_manifest();
  absl::Status read_configs();
  absl::Status read_activations();
  absl::Status check_tensors() const;

  std::filesystem::path folder_;
  SafetensorsFile weights_;
  ModelConfig config_;
  std::map<std::string, Projection2d> projections_;
  GptqGrids grids_;
  ActivationQuantizers activations_;
  std::optional<nlohmann::json> manifest_;
};

}  // namespace qaas
