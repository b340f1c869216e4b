#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/model_folder.h"
#include "workers/engine/exporters/activation_file.h"
#include "workers/engine/exporters/gptq.h"
#include "workers/engine/exporters/gptq_config.h"

namespace qaas {

/// What only the whole job knows; each field becomes a field of manifest.json of the same name.
struct ManifestContents {
  nlohmann::ordered_json spec;  ///< the job spec, defaults filled in, as proto JSON
  std::string model_digest;     ///< sha256_folder of the source
  std::map<std::string, std::string> dataset_digests;  ///< by dataset name
  nlohmann::ordered_json forecast;                     ///< null if there is none
  nlohmann::ordered_json evaluation;  ///< measured on the folder as written; null if not measured
  nlohmann::ordered_json host;        ///< threads, CPU features: what the bytes may depend on
};

/// Writes a quantized model as a Hugging Face folder in GPTQ v2 layout: model.safetensors,
/// config.json (the source's, with quantization_config and float16 as its type),
/// quantize_config.json, activation_quantization.json where inputs are quantized, the source's side
/// files, and at last manifest.json.
///
/// Use: create; add every projection and every other tensor of the model once, in any order;
/// write_weights; evaluate the folder (ArtifactReader); write_manifest. Every failure to
/// write is the failing call's (kResourceExhausted when the disk is full). Not thread-safe.
class ArtifactWriter {
 public:
  ArtifactWriter(ArtifactWriter&&) = default;
  ArtifactWriter& operator=(ArtifactWriter&&) = default;

  struct Options {
    GptqGrid base;             ///< the grid most projections have; group_size -1: whole rows
    bool for_vllm = false;     ///< refuse grids that differ within projections that vLLM fuses
    bool untie_head = false;   ///< a tied source gets a head of its own: "lm_head" is then a tensor
    std::string tool_version;  ///< of this program, for quantization_config.meta and the manifest
  };

  /// Creates `folder` where it is missing. `source` must outlive the writer.
  static absl::StatusOr<ArtifactWriter> create(const ModelFolder& source,
                                               const std::filesystem::path& folder,
                                               Options options);

  /// A quantized projection, by module name ("model.layers.0.mlp.up_proj", or "lm_head" unless it
  /// is tied); packed into a nameless file of the folder until write_weights, so that no more than
  /// one is ever in memory. kInvalidArgument, naming it: not a projection of the model, given
  /// before, another shape than the model's, or what check_gptq refuses.
  absl::Status add_projection(const std::string& name, const QuantizedWeight& weight);

  /// The source's tensor, unchanged: embeddings, head, norms or projections that were not trained.
  /// An untied head is the source's embedding.
  absl::Status add_source_tensor(const std::string& name);

  /// A trained tensor that stays in floating point (a norm), rounded to F16, the type of
  /// the artifact. kInvalidArgument, naming it: not a tensor of the model, given before, another
  /// number of values, or a value that is not finite in that type.
  absl::Status add_floats(const std::string& name, std::span<const float> values);

  /// A tensor in a floating type of the caller's choice (F32, F16 or BF16), as file bytes that stay
  /// valid until write_weights. kInvalidArgument as add_floats.
  absl::Status add_tensor(const std::string& name, Dtype dtype, std::span<const std::byte> bytes);

  /// How projections' inputs are quantized, for a file of its own; replaces what was given before.
  void set_activations(ActivationQuantizers quantizers) { activations_ = std::move(quantizers); }

  /// Writes everything but the manifest; a manifest left by an earlier attempt is removed first.
  /// kInvalidArgument names a tensor of the model that was not added, or fused projections that
  /// differ though vLLM is a target.
  absl::Status write_weights();

  /// Writes manifest.json with the size and SHA-256 of each file that write_weights wrote.
  absl::Status write_manifest(const ManifestContents& contents);

 private:
  ArtifactWriter(const ModelFolder& source, std::filesystem::path folder, Options options);

  /// Takes `name` (a tensor of the source) off the list of those still to be added.
  absl::Status claim(const std::string& name);
  /// Writes one file of the folder and notes its name for the manifest.
  absl::Status write_text(const std::string& name, std::string_view text);
  absl::Status write_configs();
  absl::Status copy_side_files();

  const ModelFolder* source_;
  ModelConfig config_;  ///< of the artifact
  std::filesystem::path folder_;
  Options options_;
  std::map<std::string, std::vector<int64_t>> missing_;  ///< tensors still to be added: shape
  std::vector<Projection2d> projections_;
  GptqGrids grids_;
  ActivationQuantizers activations_;
  std::vector<std::shared_ptr<std::byte>> spooled_;  ///< mapped files that tensors_ points into
  std::vector<std::vector<std::byte>> owned_;        ///< bytes that tensors_ points to
  std::vector<TensorToWrite> tensors_;
  std::vector<std::string> written_;  ///< file names, in the order written
};

}  // namespace qaas
