#include "workers/engine/exporters/artifact_writer.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include <absl/strings/str_cat.h>

#include "storage/checkpoint/digest.h"
#include "storage/checkpoint/folder_entry.h"
#include "storage/checkpoint/scratch_mapping.h"
#include "workers/engine/exporters/artifact_files.h"
#include "workers/engine/exporters/float16.h"

namespace qaas {
namespace {

using nlohmann::ordered_json;

constexpr char kHead[] = "lm_head", kHeadTensor[] = "lm_head.weight";
constexpr char kEmbeddingTensor[] = "model.embed_tokens.weight";
constexpr int64_t kMaxSideFileBytes = int64_t{1} << 30;
constexpr int64_t kMaxConfigBytes = 4 << 20;

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

std::string pretty(const ordered_json& document) { return document.dump(2) + "\n"; }

}  // namespace

ArtifactWriter::ArtifactWriter(const ModelFolder& source, std::filesystem::path folder,
                               Options options)
    : source_(&source),
      config_(source.config()),
      folder_(std::move(folder)),
      options_(std::move(options)),
      projections_(decoder_projections(source.config())) {
  if (options_.untie_head) config_.tie_word_embeddings = false;
  for (ExpectedTensor& tensor : expected_tensors(config_)) {
    missing_[tensor.name] = std::move(tensor.shape);
  }
  for (const Projection2d& projection : projections_) grids_[projection.name] = GptqGrid{};
}

absl::StatusOr<ArtifactWriter> ArtifactWriter::create(const ModelFolder& source,
                                                      const std::filesystem::path& folder,
                                                      Options options) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return absl::ErrnoToStatus(error.value(), folder.string());
  return ArtifactWriter(source, folder, std::move(options));
}

absl::Status ArtifactWriter::claim(const std::string& name) {
  if (missing_.erase(name) == 1) return absl::OkStatus();
  const auto all = expected_tensors(config_);
  const bool known = std::any_of(all.begin(), all.end(),
                                 [&name](const ExpectedTensor& t) { return t.name == name; });
  return absl::InvalidArgumentError(
      absl::StrCat("tensor '", name, known ? "' was added before" : "' is not part of the model"));
}

absl::Status ArtifactWriter::add_projection(const std::string& name,
                                            const QuantizedWeight& weight) {
  std::vector<Projection2d> all = decoder_projections(config_);
  if (!config_.tie_word_embeddings) {
    all.push_back({kHead, config_.vocab_size, config_.hidden_size});
  }
  const auto projection = std::find_if(all.begin(), all.end(),
                                       [&name](const Projection2d& p) { return p.name == name; });
  if (projection == all.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", name, "' is not a projection of the model"));
  }
  if (weight.rows != projection->output_size || weight.cols != projection->input_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        "projection '", name, "': shape [", weight.rows, ", ", weight.cols, "], the model has [",
        projection->output_size, ", ", projection->input_size, "]"));
  }
  auto packed = pack_gptq(name, weight);
  if (!packed.ok()) return packed.status();
  if (auto status = claim(name + ".weight"); !status.ok()) return status;
  const GptqGrid grid = {weight.bits, weight.group_size, weight.symmetric};
  const std::span<const std::byte> parts[] = {bytes_of(packed->qweight), bytes_of(packed->qzeros),
                                              bytes_of(packed->scales), bytes_of(packed->g_idx)};
  size_t total = 0;
  for (const auto& part : parts) total += part.size();
  auto spool = map_scratch_file(folder_, static_cast<int64_t>(total));
  if (!spool.ok()) return spool.status();
  std::byte* place = spool->get();
  spooled_.push_back(*std::move(spool));
  size_t next = 0;
  for (GptqTensorSpec& spec : gptq_tensor_specs(weight.rows, weight.cols, grid)) {
    const std::span<const std::byte> part = parts[next++];
    std::copy(part.begin(), part.end(), place);
    tensors_.push_back({.name = absl::StrCat(name, ".", spec.suffix),
                        .dtype = spec.dtype,
                        .shape = std::move(spec.shape),
                        .bytes = {place, part.size()}});
    place += part.size();
  }
  if (name == kHead) projections_.push_back(*projection);
  grids_[name] = grid;
  return absl::OkStatus();
}

absl::Status ArtifactWriter::add_source_tensor(const std::string& name) {
  if (auto status = claim(name); !status.ok()) return status;
  const bool untied = name == kHeadTensor && source_->config().tie_word_embeddings;
  const TensorView& view = source_->tensor(untied ? kEmbeddingTensor : name);
  tensors_.push_back({.name = name, .dtype = view.dtype, .shape = view.shape, .bytes = view.bytes});
  return absl::OkStatus();
}

absl::Status ArtifactWriter::add_floats(const std::string& name, std::span<const float> values) {
  auto bytes = encode_floats(values, Dtype::kF16);
  if (!bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor '", name, "': a value is not finite as F16, the artifact's type"));
  }
  owned_.push_back(*std::move(bytes));
  return add_tensor(name, Dtype::kF16, owned_.back());
}

absl::Status ArtifactWriter::add_tensor(const std::string& name, Dtype dtype,
                                        std::span<const std::byte> bytes) {
  const auto found = missing_.find(name);
  const std::vector<int64_t> shape =
      found == missing_.end() ? std::vector<int64_t>() : found->second;
  if (auto status = claim(name); !status.ok()) return status;
  int64_t expected = 1;
  for (const int64_t size : shape) expected *= size;
  const int64_t values = std::ssize(bytes) / dtype_size(dtype);
  if (values != expected) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor '", name, "': ", values, " values, the model has ", expected));
  }
  tensors_.push_back({.name = name, .dtype = dtype, .shape = shape, .bytes = bytes});
  return absl::OkStatus();
}

absl::Status ArtifactWriter::write_text(const std::string& name, std::string_view text) {
  if (auto status = write_file(folder_ / name, text); !status.ok()) return status;
  written_.push_back(name);
  return absl::OkStatus();
}

absl::Status ArtifactWriter::write_configs() {
  const auto text = read_inside(source_->path(), kConfigFile, kMaxConfigBytes);
  if (!text.ok()) return text.status();
  ordered_json config = ordered_json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) {
    return absl::FailedPreconditionError(
        absl::StrCat((source_->path() / kConfigFile).string(), " changed since it was opened"));
  }
  const ordered_json quantization =
      gptq_quantization_config(options_.base, projections_, grids_, options_.tool_version);
  // Runtimes cast scales to the model's type: in bf16 they would lose three bits. Newer ones read
  // "dtype", older ones "torch_dtype".
  config["torch_dtype"] = "float16";
  config["dtype"] = "float16";
  if (source_->config().tie_word_embeddings && !config_.tie_word_embeddings) {
    config["tie_word_embeddings"] = false;
  }
  config["quantization_config"] = quantization;
  if (!activations_.empty()) {
    const std::string text = pretty(activation_json(activations_));
    if (auto status = write_text(kActivationFile, text); !status.ok()) return status;
  }
  if (auto status = write_text(kConfigFile, pretty(config)); !status.ok()) return status;
  return write_text(kQuantizeConfigFile, pretty(quantization));
}

absl::Status ArtifactWriter::copy_side_files() {
  for (const std::string& name : source_->side_files()) {
    if (name == kConfigFile || name == kQuantizeConfigFile || name == kManifestFile ||
        name == kActivationFile) {
      continue;
    }
    const auto text = read_inside(source_->path(), name, kMaxSideFileBytes);
    if (!text.ok()) return text.status();
    if (auto status = write_text(name, *text); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ArtifactWriter::write_weights() {
  if (!missing_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", missing_.begin()->first,
                                                   "' was not added (", missing_.size(),
                                                   " of the model's are missing)"));
  }
  if (options_.for_vllm) {
    if (auto status = check_fused_projections(grids_); !status.ok()) return status;
  }
  std::error_code error;
  for (const char* stale : {kManifestFile, kActivationFile}) {
    std::filesystem::remove(folder_ / stale, error);
    if (error) return absl::ErrnoToStatus(error.value(), (folder_ / stale).string());
  }
  written_.clear();
  if (auto status = write_safetensors(folder_ / kWeightsFile, tensors_); !status.ok()) {
    return status;
  }
  written_.push_back(kWeightsFile);
  // Views of the source went into that file.
  if (auto status = source_->check_unchanged(); !status.ok()) return status;
  if (auto status = write_configs(); !status.ok()) return status;
  return copy_side_files();
}

absl::Status ArtifactWriter::write_manifest(const ManifestContents& contents) {
  if (written_.empty()) {
    return absl::FailedPreconditionError("the weights are to be written before the manifest");
  }
  std::vector<std::string> names = written_;
  std::sort(names.begin(), names.end());
  ordered_json files = ordered_json::array();
  for (const std::string& name : names) {
    std::error_code error;
    const auto size = std::filesystem::file_size(folder_ / name, error);
    if (error) return absl::ErrnoToStatus(error.value(), (folder_ / name).string());
    const auto digest = sha256_file(folder_ / name);
    if (!digest.ok()) return digest.status();
    files.push_back({{"name", name}, {"size", size}, {"sha256", *digest}});
  }
  const ordered_json manifest = {{"format_version", activations_.empty() ? 1 : kManifestVersion},
                                 {"layout", "gptq_v2"},
                                 {"tool", {{"name", "qaas"}, {"version", options_.tool_version}}},
                                 {"spec", contents.spec},
                                 {"model_digest", contents.model_digest},
                                 {"dataset_digests", ordered_json(contents.dataset_digests)},
                                 {"forecast", contents.forecast},
                                 {"evaluation", contents.evaluation},
                                 {"host", contents.host},
                                 {"files", std::move(files)}};
  return write_file(folder_ / kManifestFile, pretty(manifest));
}

}  // namespace qaas
