#include "workers/engine/quant/rotation.h"

#include <cmath>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include "storage/checkpoint/folder_entry.h"
#include "storage/checkpoint/safetensors.h"
#include "storage/checkpoint/scratch_mapping.h"
#include "workers/engine/model/decoder.h"
#include "workers/engine/quant/hadamard.h"

namespace qaas {
namespace {

constexpr char kConfig[] = "config.json";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr char kHead[] = "lm_head.weight";
constexpr int64_t kMaxConfigBytes = 4 << 20;

absl::Status write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (file) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(path.string(), ": cannot be written"));
}

/// Turns one part of a model after the other and writes each as a shard.
class CheckpointRotation {
 public:
  CheckpointRotation(const ModelFolder& model, const std::filesystem::path& folder, uint64_t seed)
      : model_(model),
        folder_(folder),
        source_(
            [&model](const std::string& name) -> const TensorView& { return model.tensor(name); }),
        ends_(load_ends(model.config(), source_)),
        rotation_(model.config().hidden_size, seed),
        parts_(model.config().num_hidden_layers + 2) {}

  int64_t parts() const { return parts_; }

  /// Part 0 is the embedding, then come the blocks, the last is the final norm with the head.
  absl::Status write_part(int64_t part) {
    if (const absl::Status status = model_.check_unchanged(); !status.ok()) return status;
    absl::Status turned;
    if (part == 0) {
      turned = add_reader("model.embed_tokens.weight", ends_.embedding, {});
    } else if (part < parts_ - 1) {
      turned = add_block(block_prefix(part - 1));
    } else {
      turned = add_ones("model.norm.weight");
      if (turned.ok()) turned = add_reader(kHead, ends_.head, ends_.final_norm);
    }
    if (!turned.ok()) return turned;
    const std::string name = absl::StrFormat("model-%05d-of-%05d.safetensors", part + 1, parts_);
    for (const TensorToWrite& tensor : tensors_) {
      index_["weight_map"][tensor.name] = name;
      total_bytes_ += static_cast<int64_t>(tensor.bytes.size());
    }
    const absl::Status written = write_safetensors(folder_ / name, std::move(tensors_));
    tensors_.clear();
    memory_.clear();
    return written;
  }

  /// Everything but the weights; config.json last, without which the folder is no model.
  absl::Status write_side_files() {
    index_["metadata"]["total_size"] = total_bytes_;
    if (auto status = write_text(folder_ / kIndex, index_.dump(2)); !status.ok()) return status;
    for (const std::string& name : model_.side_files()) {
      if (name == kConfig) continue;
      std::error_code error;
      std::filesystem::copy_file(model_.path() / name, folder_ / name, error);
      if (error) return absl::ErrnoToStatus(error.value(), (folder_ / name).string());
    }
    const auto text = read_inside(model_.path(), kConfig, kMaxConfigBytes);
    if (!text.ok()) return text.status();
    auto config = nlohmann::ordered_json::parse(*text, nullptr, /*allow_exceptions=*/false);
    if (!config.is_object()) {
      return absl::FailedPreconditionError(
          absl::StrCat((model_.path() / kConfig).string(), ": changed since it was opened"));
    }
    config["tie_word_embeddings"] = false;
    config[config.contains("dtype") ? "dtype" : "torch_dtype"] = "float32";
    return write_text(folder_ / kConfig, config.dump(2));
  }

 private:
  /// Room for a tensor of the part at hand, [shape] float32, in a mapped file.
  absl::StatusOr<torch::Tensor> add(const std::string& name, std::vector<int64_t> shape) {
    int64_t bytes = 4;
    for (const int64_t size : shape) bytes *= size;
    auto memory = map_scratch_file(folder_, bytes);
    if (!memory.ok()) return memory.status();
    const torch::Tensor tensor = torch::from_blob(memory->get(), shape, torch::kFloat32);
    tensors_.push_back({.name = name,
                        .dtype = Dtype::kF32,
                        .shape = std::move(shape),
                        .bytes = {memory->get(), static_cast<size_t>(bytes)}});
    memory_.push_back(*std::move(memory));
    return tensor;
  }

  static absl::Status check_finite(const std::string& name, const torch::Tensor& turned) {
    // A NaN or infinity anywhere is one in the sum; finite float32 values cannot overflow it.
    if (std::isfinite(turned.sum(torch::kFloat64).item<double>())) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("tensor '", name,
                     "' (or the norm before it) holds values that are NaN or infinite; "
                     "expected finite ones"));
  }

  absl::Status add_ones(const std::string& name) {
    auto ones = add(name, {model_.config().hidden_size});
    if (!ones.ok()) return ones.status();
    ones->fill_(1);
    return absl::OkStatus();
  }

  /// W·diag(norm)·Q. weight: [out, hidden]; norm: [hidden], undefined for none.
  absl::Status add_reader(const std::string& name, const torch::Tensor& weight,
                          const torch::Tensor& norm) {
    auto turned = add(name, weight.sizes().vec());
    if (!turned.ok()) return turned.status();
    rotation_.apply(weight, norm, *turned);
    return check_finite(name, *turned);
  }

  /// Qᵀ·W. weight: [hidden, in].
  absl::Status add_writer(const std::string& name, const torch::Tensor& weight) {
    auto turned = add(name, weight.sizes().vec());
    if (!turned.ok()) return turned.status();
    rotation_.apply(weight.t(), {}, turned->t());
    return check_finite(name, *turned);
  }

  absl::Status add_block(const std::string& prefix) {
    for (const ExpectedTensor& expected : expected_tensors(model_.config())) {
      if (!absl::StartsWith(expected.name, prefix)) continue;
      const std::string name = expected.name.substr(prefix.size());
      absl::Status status;
      if (absl::EndsWith(name, "layernorm.weight")) {
        status = add_ones(expected.name);
      } else if (name == "self_attn.o_proj.weight" || name == "mlp.down_proj.weight") {
        status = add_writer(expected.name, to_float_tensor(source_(expected.name)));
      } else if (expected.shape.size() == 2 && absl::EndsWith(name, "_proj.weight")) {
        const char* norm = absl::StartsWith(name, "mlp.") ? "post_attention_layernorm.weight"
                                                          : "input_layernorm.weight";
        status = add_reader(expected.name, to_float_tensor(source_(expected.name)),
                            to_float_tensor(source_(prefix + norm)));
      } else {
        status = absl::InvalidArgumentError(
            absl::StrCat("tensor '", expected.name,
                         "': a rotation of the residual stream does not "
                         "know this part; models of norms and projections without bias are "
                         "accepted"));
      }
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  const ModelFolder& model_;
  std::filesystem::path folder_;
  TensorSource source_;
  ModelEnds ends_;
  RandomRotation rotation_;
  int64_t parts_;
  std::vector<TensorToWrite> tensors_;              // of the part at hand
  std::vector<std::shared_ptr<std::byte>> memory_;  // behind them
  nlohmann::ordered_json index_ = {{"metadata", nlohmann::ordered_json::object()},
                                   {"weight_map", nlohmann::ordered_json::object()}};
  int64_t total_bytes_ = 0;
};

}  // namespace

absl::Status rotate_checkpoint(const ModelFolder& model, const std::filesystem::path& folder,
                               const RotationOptions& options, const RotationProgress& progress,
                               std::stop_token stop) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return absl::ErrnoToStatus(error.value(), folder.string());
  if (!std::filesystem::is_empty(folder, error)) {
    return absl::AlreadyExistsError(
        absl::StrCat(folder.string(), ": holds files already, expected an empty folder"));
  }
  CheckpointRotation rotation(model, folder, options.seed);
  for (int64_t part = 0; part < rotation.parts(); ++part) {
    if (stop.stop_requested()) return absl::CancelledError("rotating the model was stopped");
    if (const absl::Status status = rotation.write_part(part); !status.ok()) return status;
    progress(part + 1, rotation.parts());
  }
  return rotation.write_side_files();
}

}  // namespace qaas
