#include "workers/engine/job/artifact.h"

#include <algorithm>
#include <span>
#include <utility>

#include <google/protobuf/util/json_util.h>
#include <nlohmann/json.hpp>

#include "proto/spec/job_spec.h"
#include "workers/engine/job/version.h"
#include "workers/engine/kernels/instruction_set.h"

namespace qaas {
namespace {

nlohmann::ordered_json to_json(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  TORCH_CHECK(status.ok(), "message cannot be written as JSON: ", status.ToString());
  return nlohmann::ordered_json::parse(text);
}

bool targets_vllm(const v1::JobSpec& spec) {
  const auto& runtimes = spec.target_runtimes();
  return std::find(runtimes.begin(), runtimes.end(), v1::TARGET_RUNTIME_VLLM) != runtimes.end();
}

/// Adds block `index`: codes, norms, and from the source what keeps full precision.
absl::Status add_block(ArtifactWriter& writer, int64_t index, const ModelConfig& config,
                       const QuantizedBlock& block) {
  const std::string prefix = block_prefix(index);
  for (const Projection2d& projection : decoder_projections(config)) {
    if (!projection.name.starts_with(prefix)) continue;
    const auto found = block.projections.find(projection.name.substr(prefix.size()));
    const absl::Status status = found == block.projections.end()
                                    ? writer.add_source_tensor(projection.name + ".weight")
                                    : writer.add_projection(projection.name, found->second);
    if (!status.ok()) return status;
  }
  for (const auto& [name, norm] : block.norms) {
    const torch::Tensor values = norm.contiguous();
    const absl::Status status = writer.add_floats(
        prefix + name, std::span<const float>(values.data_ptr<float>(), size_t(values.numel())));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

TensorSource source_tensors(const ModelFolder& model) {
  return [&model](const std::string& name) -> const TensorView& { return model.tensor(name); };
}

std::string host_description(torch::ScalarType compute) {
  nlohmann::ordered_json host;
  host["threads"] = at::get_num_threads();
  host["compute_type"] = compute == torch::kBFloat16 ? "bfloat16" : "float32";
  host["instruction_set"] = kernels::instruction_set_name(kernels::best_instruction_set());
  host["libtorch"] = TORCH_VERSION;
  return host.dump();
}

absl::StatusOr<ArtifactWriter> write_artifact(const JobState& state) {
  const v1::JobSpec& spec = state.spec;
  absl::StatusOr<ArtifactWriter> writer =
      ArtifactWriter::create(*state.source, state.folders.out,
                             {.base = {.bits = spec.weights().bits(),
                                       .group_size = spec.weights().group_size(),
                                       .symmetric = spec.weights().symmetric()},
                              .for_vllm = targets_vllm(spec),
                              .tool_version = kEngineVersion});
  if (!writer.ok()) return writer.status();
  for (int64_t i = 0; i < state.blocks.count(); ++i) {
    const absl::StatusOr<QuantizedBlock> block = state.blocks.get(i);
    if (!block.ok()) return block.status();
    const absl::Status status = add_block(*writer, i, state.config(), *block);
    if (!status.ok()) return status;
  }
  for (const ExpectedTensor& tensor : expected_tensors(state.config())) {
    if (tensor.name.starts_with("model.layers.")) continue;  // added with its block
    const absl::Status status = writer->add_source_tensor(tensor.name);
    if (!status.ok()) return status;
  }
  if (const absl::Status status = writer->write_weights(); !status.ok()) return status;
  return writer;
}

absl::StatusOr<std::vector<std::string>> write_manifest(ArtifactWriter& writer,
                                                        const JobInputs& inputs,
                                                        const v1::Evaluation& evaluation,
                                                        const Provenance& provenance,
                                                        const std::filesystem::path& folder) {
  nlohmann::ordered_json host = nlohmann::ordered_json::parse(provenance.host);
  if (provenance.other_host) host["resumed_from_other_host"] = true;
  const absl::Status status =
      writer.write_manifest({.spec = to_json(inputs.job.spec()),
                             .model_digest = inputs.model_digest,
                             .dataset_digests = inputs.dataset_digests,
                             .forecast = inputs.job.has_forecast() ? to_json(inputs.job.forecast())
                                                                   : nlohmann::ordered_json(),
                             .evaluation = to_json(evaluation),
                             .host = std::move(host)});
  if (!status.ok()) return status;
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path().filename().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

absl::StatusOr<LoadedArtifact> load_artifact(const std::filesystem::path& folder) {
  absl::StatusOr<ArtifactReader> reader = ArtifactReader::open(folder);
  if (!reader.ok()) return reader.status();
  LoadedArtifact artifact{.reader = *std::move(reader)};
  artifact.ends = load_ends(
      artifact.reader.config(),
      [&](const std::string& name) -> const TensorView& { return artifact.reader.tensor(name); });
  return artifact;
}

absl::StatusOr<DecoderBlock> load_artifact_block(const ArtifactReader& reader, int64_t index) {
  const std::string prefix = block_prefix(index);
  QuantizedBlock block;
  for (const auto& [name, grid] : reader.grids()) {
    if (!name.starts_with(prefix) || grid.bits == 0) continue;
    absl::StatusOr<QuantizedWeight> weight = reader.projection(name);
    if (!weight.ok()) return weight.status();
    block.projections[name.substr(prefix.size())] = *std::move(weight);
  }
  for (const ExpectedTensor& tensor : expected_tensors(reader.config())) {
    if (!tensor.name.starts_with(prefix) || tensor.shape.size() != 1) continue;
    block.norms[tensor.name.substr(prefix.size())] = to_float_tensor(reader.tensor(tensor.name));
  }
  return make_packed_block(
      reader.config(),
      [&](const std::string& name) -> const TensorView& { return reader.tensor(name); }, index,
      block);
}

}  // namespace qaas
