#include "workers/engine/exporters/artifact_reader.h"

#include <cassert>
#include <set>
#include <utility>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include "storage/checkpoint/digest.h"
#include "storage/checkpoint/folder_entry.h"
#include "storage/checkpoint/message_text.h"
#include "storage/checkpoint/strict_json.h"
#include "storage/checkpoint/tensor_rules.h"
#include "workers/engine/exporters/artifact_files.h"

namespace qaas {
namespace {

using nlohmann::json;

constexpr int64_t kMaxJsonBytes = 64 << 20;
constexpr char kQuantizationConfig[] = "quantization_config";

absl::StatusOr<json> read_json(const std::filesystem::path& folder, const char* name) {
  const auto text = read_inside(folder, name, kMaxJsonBytes);
  if (!text.ok()) return text.status();
  auto document = parse_strict_json(*text, {});
  if (document.ok() && document->is_object()) return document;
  return absl::InvalidArgumentError(absl::StrCat(
      (folder / name).string(), ": ",
      document.ok() ? absl::StrCat("found ", describe_json(*document), ", expected an object")
                    : document.status().message()));
}

absl::Status in_file(const std::filesystem::path& folder, const char* name,
                     const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat((folder / name).string(), ": ", status.message()));
}

/// Type and shape of one tensor that the folder must hold. A floating type means any of the three.
absl::Status check_tensor(const std::map<std::string, TensorView>& tensors, const std::string& name,
                          std::optional<Dtype> dtype, const std::vector<int64_t>& shape) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor '", name, "' is missing, expected with shape ", shape_text(shape)));
  }
  const TensorView& view = found->second;
  const bool floating =
      view.dtype == Dtype::kF32 || view.dtype == Dtype::kF16 || view.dtype == Dtype::kBf16;
  if (dtype ? view.dtype != *dtype : !floating) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor '", name, "': dtype ", dtype_name(view.dtype), ", expected ",
                     dtype ? dtype_name(*dtype) : "F32, F16 or BF16"));
  }
  if (view.shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor '", name, "': shape ", shape_text(view.shape), ", expected ", shape_text(shape)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ArtifactReader> ArtifactReader::open(const std::filesystem::path& folder) {
  const auto path = resolve_inside(folder, kWeightsFile);
  if (!path.ok()) return path.status();
  auto weights = SafetensorsFile::open(*path);
  if (!weights.ok()) return weights.status();
  ArtifactReader reader(folder, *std::move(weights));
  if (auto status = reader.read_manifest(); !status.ok()) {
    return in_file(folder, kManifestFile, status);
  }
  if (auto status = reader.read_configs(); !status.ok()) return status;
  if (auto status = reader.read_activations(); !status.ok()) return status;
  if (auto status = reader.check_tensors(); !status.ok()) {
    return in_file(folder, kWeightsFile, status);
  }
  return reader;
}

absl::Status ArtifactReader::read_manifest() {
  auto manifest = read_json(folder_, kManifestFile);
  if (absl::IsNotFound(manifest.status())) return absl::OkStatus();
  if (!manifest.ok()) return manifest.status();
  const json version = manifest->value("format_version", json());
  if (!version.is_number_integer() || version < 1 || version > kManifestVersion) {
    return absl::InvalidArgumentError(absl::StrCat("format_version: found ", describe_json(version),
                                                   ", accepted: 1 to ", kManifestVersion));
  }
  if (manifest->value("layout", json()) != "gptq_v2") {
    return absl::InvalidArgumentError(absl::StrCat("layout: found ",
                                                   describe_json(manifest->value("layout", json())),
                                                   ", accepted: \"gptq_v2\""));
  }
  const json files = manifest->value("files", json());
  if (!files.is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat("files: found ", describe_json(files), ", expected an array"));
  }
  std::set<std::string> unlisted = {kWeightsFile, kConfigFile, kQuantizeConfigFile};
  std::error_code missing;
  if (std::filesystem::exists(folder_ / kActivationFile, missing)) unlisted.insert(kActivationFile);
  for (const json& file : files) {
    if (!file.is_object() || !file.value("name", json()).is_string() ||
        !file.value("size", json()).is_number_integer() ||
        !file.value("sha256", json()).is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat("files: found ", describe_json(file), ", expected name, size and sha256"));
    }
    const std::string& name = file.at("name").get_ref<const std::string&>();
    const auto path = resolve_inside(folder_, name);
    if (!path.ok()) return absl::InvalidArgumentError(path.status().message());
    std::error_code error;
    const auto size = std::filesystem::file_size(*path, error);
    if (error) return absl::ErrnoToStatus(error.value(), path->string());
    if (file.at("size") != size) {
      return absl::InvalidArgumentError(absl::StrCat("files: '", printable(name), "' has ", size,
                                                     " bytes, the manifest says ",
                                                     file.at("size").dump()));
    }
    unlisted.erase(name);
  }
  if (!unlisted.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("files: '", *unlisted.begin(), "' is not listed"));
  }
  manifest_ = *std::move(manifest);
  return absl::OkStatus();
}

absl::Status ArtifactReader::read_configs() {
  auto config = read_json(folder_, kConfigFile);
  if (!config.ok()) return config.status();
  const auto quantize_config = read_json(folder_, kQuantizeConfigFile);
  if (!quantize_config.ok()) return quantize_config.status();
  const json quantization = config->value(kQuantizationConfig, json());
  if (quantization != *quantize_config) {
    return absl::InvalidArgumentError(absl::StrCat(folder_.string(), ": ", kQuantizeConfigFile,
                                                   " differs from ", kQuantizationConfig, " in ",
                                                   kConfigFile));
  }
  // The rest describes the model as before quantization.
  config->erase(kQuantizationConfig);
  auto parsed = parse_model_config(config->dump());
  if (!parsed.ok()) return in_file(folder_, kConfigFile, parsed.status());
  config_ = *std::move(parsed);
  std::vector<Projection2d> projections = decoder_projections(config_);
  if (quantization.is_object() && quantization.value("lm_head", json()) == true &&
      !config_.tie_word_embeddings) {
    projections.push_back({"lm_head", config_.vocab_size, config_.hidden_size});
  }
  auto grids = parse_gptq_quantization_config(quantization, projections);
  if (!grids.ok()) return in_file(folder_, kConfigFile, grids.status());
  grids_ = *std::move(grids);
  for (const Projection2d& projection : projections) projections_[projection.name] = projection;
  return absl::OkStatus();
}

absl::Status ArtifactReader::read_activations() {
  const auto document = read_json(folder_, kActivationFile);
  if (absl::IsNotFound(document.status())) return absl::OkStatus();
  if (!document.ok()) return document.status();
  auto quantizers = parse_activation_json(*document, decoder_projections(config_));
  if (!quantizers.ok()) return in_file(folder_, kActivationFile, quantizers.status());
  activations_ = *std::move(quantizers);
  return absl::OkStatus();
}

absl::Status ArtifactReader::check_tensors() const {
  const std::map<std::string, TensorView>& tensors = weights_.tensors();
  std::set<std::string> used;
  for (const ExpectedTensor& expected : expected_tensors(config_)) {
    const std::string module = expected.name.substr(0, expected.name.rfind('.'));
    const auto grid = grids_.find(module);
    if (grid == grids_.end() || grid->second.bits == 0) {
      if (auto status = check_tensor(tensors, expected.name, std::nullopt, expected.shape);
          !status.ok()) {
        return status;
      }
      used.insert(expected.name);
      continue;
    }
    for (const GptqTensorSpec& spec :
         gptq_tensor_specs(expected.shape[0], expected.shape[1], grid->second)) {
      const std::string name = absl::StrCat(module, ".", spec.suffix);
      if (auto status = check_tensor(tensors, name, spec.dtype, spec.shape); !status.ok()) {
        return status;
      }
      used.insert(name);
    }
  }
  for (const auto& [name, view] : tensors) {
    if (!used.contains(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", name, "' is not part of the model as config.json describes it"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<QuantizedWeight> ArtifactReader::projection(const std::string& name) const {
  const auto projection = projections_.find(name);
  assert(projection != projections_.end() && grids_.at(name).bits != 0);
  if (auto status = weights_.check_unchanged(); !status.ok()) return status;
  return unpack_gptq(name, projection->second.output_size, projection->second.input_size,
                     grids_.at(name), weights_.tensors());
}

const TensorView& ArtifactReader::tensor(const std::string& name) const {
  const auto found = weights_.tensors().find(name);
  assert(found != weights_.tensors().end());
  return found->second;
}

absl::Status ArtifactReader::verify_digests() const {
  if (!manifest_) {
    return absl::FailedPreconditionError(
        absl::StrCat(folder_.string(), ": there is no ", kManifestFile, " to compare with"));
  }
  for (const json& file : manifest_->at("files")) {
    const std::string& name = file.at("name").get_ref<const std::string&>();
    const auto digest = sha256_file(folder_ / name);
    if (!digest.ok()) return digest.status();
    if (file.at("sha256") != *digest) {
      return absl::InvalidArgumentError(absl::StrCat((folder_ / name).string(), ": SHA-256 is ",
                                                     *digest, ", the manifest says ",
                                                     describe_json(file.at("sha256"))));
    }
  }
  return absl::OkStatus();
}

}  // namespace qaas
