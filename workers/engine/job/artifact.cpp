#include "workers/engine/job/artifact.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include <google/protobuf/util/json_util.h>
#include <nlohmann/json.hpp>

#include "proto/spec/job_spec.h"
#include "workers/engine/job/version.h"
#include "workers/engine/kernels/instruction_set.h"
#include "workers/engine/quant/packed_projection.h"

namespace qaas {
namespace {

constexpr char kEmbedding[] = "model.embed_tokens.weight", kFinalNorm[] = "model.norm.weight",
               kHead[] = "lm_head.weight";

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
                       const QuantizedBlock& block, ActivationQuantizers& activations) {
  const std::string prefix = block_prefix(index);
  for (const Projection2d& projection : decoder_projections(config)) {
    if (!projection.name.starts_with(prefix)) continue;
    const auto found = block.projections.find(projection.name.substr(prefix.size()));
    const absl::Status status = found == block.projections.end()
                                    ? writer.add_source_tensor(projection.name + ".weight")
                                    : writer.add_projection(projection.name, found->second);
    if (!status.ok()) return status;
  }
  for (const auto& [name, quantizer] : block.activations) activations[prefix + name] = quantizer;
  for (const auto& [name, norm] : block.norms) {
    const torch::Tensor values = norm.contiguous();
    const absl::Status status = writer.add_floats(
        prefix + name, std::span<const float>(values.data_ptr<float>(), size_t(values.numel())));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

Dtype dtype_of(const torch::Tensor& values) {
  switch (values.scalar_type()) {
    case torch::kFloat16:
      return Dtype::kF16;
    case torch::kBFloat16:
      return Dtype::kBf16;
    default:
      TORCH_CHECK(values.scalar_type() == torch::kFloat32, "model tensors are float, got ",
                  values.scalar_type());
      return Dtype::kF32;
  }
}

/// Adds `values` as tensor `name`, or the source's tensor of that name where they are its bytes.
absl::Status add_end(ArtifactWriter& writer, const ModelFolder& source, const std::string& name,
                     const std::string& source_name, const torch::Tensor& values) {
  const std::span<const std::byte> bytes(static_cast<const std::byte*>(values.data_ptr()),
                                         values.nbytes());
  const std::span<const std::byte> original = source.tensor(source_name).bytes;
  const bool same = bytes.size() == original.size() &&
                    (bytes.data() == original.data() ||
                     std::memcmp(bytes.data(), original.data(), bytes.size()) == 0);
  return same ? writer.add_source_tensor(name) : writer.add_tensor(name, dtype_of(values), bytes);
}

absl::Status add_ends(ArtifactWriter& writer, const ModelFolder& source, const ModelEnds& ends) {
  absl::Status status = add_end(writer, source, kEmbedding, kEmbedding, ends.embedding);
  if (!status.ok()) return status;
  const torch::Tensor norm = to_float_tensor(source.tensor(kFinalNorm));  // [dim]
  status = torch::equal(norm, ends.final_norm)
               ? writer.add_source_tensor(kFinalNorm)
               : writer.add_floats(kFinalNorm, std::span<const float>(
                                                   ends.final_norm.data_ptr<float>(),
                                                   static_cast<size_t>(ends.final_norm.numel())));
  if (!status.ok()) return status;
  if (ends.quantized_head != nullptr) {
    const auto packed = std::dynamic_pointer_cast<PackedProjection>(ends.quantized_head);
    TORCH_CHECK(packed != nullptr, "a quantized head is packed when it is written");
    return writer.add_projection("lm_head", packed->to_quantized_weight());
  }
  if (ends.head.is_same(ends.embedding)) return absl::OkStatus();
  return add_end(writer, source, kHead, source.config().tie_word_embeddings ? kEmbedding : kHead,
                 ends.head);
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
                              .untie_head = !state.ends.head.is_same(state.ends.embedding),
                              .tool_version = kEngineVersion});
  if (!writer.ok()) return writer.status();
  ActivationQuantizers activations;
  for (int64_t i = 0; i < state.blocks.count(); ++i) {
    const absl::StatusOr<QuantizedBlock> block = state.blocks.get(i);
    if (!block.ok()) return block.status();
    const absl::Status status = add_block(*writer, i, state.config(), *block, activations);
    if (!status.ok()) return status;
  }
  writer->set_activations(std::move(activations));
  if (const absl::Status status = add_ends(*writer, *state.source, state.ends); !status.ok()) {
    return status;
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
  ModelConfig config = artifact.reader.config();
  const auto head = artifact.reader.grids().find("lm_head");
  const bool quantized_head = head != artifact.reader.grids().end() && head->second.bits != 0;
  if (quantized_head) config.tie_word_embeddings = true;  // there is no float head to load
  artifact.ends = load_ends(config, [&](const std::string& name) -> const TensorView& {
    return artifact.reader.tensor(name);
  });
  if (quantized_head) {
    absl::StatusOr<QuantizedWeight> weight = artifact.reader.projection("lm_head");
    if (!weight.ok()) return weight.status();
    artifact.ends.quantized_head = std::make_shared<PackedProjection>(*std::move(weight));
    artifact.ends.head.reset();
  }
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
  for (const auto& [name, quantizer] : reader.activations()) {
    if (name.starts_with(prefix)) block.activations[name.substr(prefix.size())] = quantizer;
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
