#include "workers/engine/job/block_checkpoints.h"

#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/strip.h>
#include <google/protobuf/util/json_util.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/safetensors.h"

namespace qaas {
namespace {

constexpr char kVersion[] = "1";
constexpr char kCodes[] = ".codes", kZeroPoints[] = ".zero_points", kScales[] = ".scales";
constexpr char kMaster[] = ".master", kMasterScale[] = ".master_scale",
               kMasterZeroPoint[] = ".master_zero_point";

std::string file_name(BlockCheckpoints::Stage stage, int64_t index) {
  const char* prefix = stage == BlockCheckpoints::Stage::kBlockTraining ? "block" : "end-to-end";
  return absl::StrFormat("%s-%04d.safetensors", prefix, index);
}

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span<const T>(values));
}

/// Copies a tensor's values out; false if its type or size is another.
template <class T>
bool copy_values(const TensorView& view, Dtype dtype, size_t count, std::vector<T>& out) {
  if (view.dtype != dtype || view.bytes.size() != count * sizeof(T)) return false;
  out.resize(count);
  std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
  return true;
}

/// The grids of the block's projections, kept in the file's metadata.
std::string grids_json(const QuantizedBlock& block) {
  nlohmann::json grids = nlohmann::json::object();
  for (const auto& [name, weight] : block.projections) {
    grids[name] = {{"rows", weight.rows},
                   {"cols", weight.cols},
                   {"bits", weight.bits},
                   {"group_size", weight.group_size},
                   {"symmetric", weight.symmetric}};
  }
  return grids.dump();
}

std::string curve_json(const v1::TrainingCurve& curve) {
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(curve, &text);
  TORCH_CHECK(status.ok(), "a training curve cannot be written as JSON: ", status.ToString());
  return text;
}

/// How the inputs of the block's projections are quantized, kept beside the grids.
std::string activations_json(const QuantizedBlock& block) {
  nlohmann::json activations = nlohmann::json::object();
  for (const auto& [name, quantizer] : block.activations) {
    activations[name] = {{"bits", quantizer.grid.bits},
                         {"group_size", quantizer.grid.group_size},
                         {"clip", quantizer.clip}};
  }
  return activations.dump();
}

bool read_activation(const nlohmann::json& from, ActivationQuantizer& quantizer) {
  for (const char* field : {"bits", "group_size"}) {
    if (!from.contains(field) || !from[field].is_number_integer()) return false;
  }
  if (!from.contains("clip") || !from["clip"].is_number()) return false;
  quantizer = {{from["bits"].get<int>(), from["group_size"].get<int64_t>()},
               from["clip"].get<float>()};
  return (quantizer.grid.bits == 4 || quantizer.grid.bits == 8) &&
         (quantizer.grid.group_size == -1 || quantizer.grid.group_size > 0) &&
         quantizer.clip >= kMinClip && quantizer.clip <= 1;
}

/// A grid whose sizes are safe to allocate by, or false.
bool read_grid(const nlohmann::json& from, QuantizedWeight& weight) {
  constexpr int64_t kMostInputs = 1 << 24;
  for (const char* field : {"rows", "cols", "bits", "group_size"}) {
    if (!from.contains(field) || !from[field].is_number_integer()) return false;
  }
  if (!from.contains("symmetric") || !from["symmetric"].is_boolean()) return false;
  weight.rows = from["rows"].get<int64_t>();
  weight.cols = from["cols"].get<int64_t>();
  weight.bits = from["bits"].get<int>();
  weight.group_size = from["group_size"].get<int64_t>();
  weight.symmetric = from["symmetric"].get<bool>();
  return weight.rows > 0 && weight.rows < kMostInputs && weight.cols > 0 &&
         weight.cols < kMostInputs && weight.group_size > 0 &&
         weight.cols % weight.group_size == 0 &&
         (weight.bits == 2 || weight.bits == 3 || weight.bits == 4 || weight.bits == 8) &&
         weight.cols * weight.bits % 32 == 0;
}

}  // namespace

BlockCheckpoints::BlockCheckpoints(std::filesystem::path folder, Identity identity)
    : folder_(std::move(folder)), identity_(std::move(identity)) {}

absl::StatusOr<std::string> BlockCheckpoints::save(
    Stage stage, int64_t index, const QuantizedBlock& block,
    const std::optional<v1::TrainingCurve>& curve) const {
  std::vector<TensorToWrite> tensors;
  std::vector<torch::Tensor> kept;  // keep the bytes alive
  const auto add_floats = [&](const std::string& name, const torch::Tensor& values) {
    kept.push_back(values.contiguous());
    const auto* data = kept.back().data_ptr<float>();
    tensors.push_back({name, Dtype::kF32, kept.back().sizes().vec(),
                       std::as_bytes(std::span<const float>(data, size_t(values.numel())))});
  };
  for (const auto& [name, weight] : block.projections) {
    const int64_t groups = weight.cols / weight.group_size;
    tensors.push_back({name + kCodes,
                       Dtype::kU32,
                       {weight.rows, weight.cols * weight.bits / 32},
                       bytes_of(weight.packed)});
    tensors.push_back(
        {name + kZeroPoints, Dtype::kU8, {weight.rows, groups}, bytes_of(weight.zero_points)});
    tensors.push_back(
        {name + kScales, Dtype::kF32, {weight.rows, groups}, bytes_of(weight.scales)});
  }
  for (const auto& [name, master] : block.masters) {
    add_floats(name + kMaster, master.weight);
    add_floats(name + kMasterScale, master.qparams.scale);
    add_floats(name + kMasterZeroPoint, master.qparams.zero_point);
  }
  for (const auto& [name, norm] : block.norms) add_floats(name, norm);
  const std::string name = file_name(stage, index);
  const absl::Status status =
      write_safetensors(folder_ / name, std::move(tensors),
                        {{"qaas_checkpoint_version", kVersion},
                         {"fingerprint", identity_.fingerprint},
                         {"host", identity_.host},
                         {"grids", grids_json(block)},
                         {"activations", activations_json(block)},
                         {"curve", curve.has_value() ? curve_json(*curve) : ""}});
  if (!status.ok()) return status;
  return name;
}

absl::StatusOr<std::optional<BlockCheckpoints::Loaded>> BlockCheckpoints::load(
    Stage stage, int64_t index) const {
  const std::string name = file_name(stage, index);
  std::error_code error;
  if (!std::filesystem::exists(folder_ / name, error)) return std::nullopt;
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::open(folder_ / name);
  if (!file.ok()) return file.status();
  const auto metadata = [&](const char* key) {
    const auto found = file->metadata().find(key);
    return found == file->metadata().end() ? std::string() : found->second;
  };
  if (metadata("qaas_checkpoint_version") != kVersion ||
      metadata("fingerprint") != identity_.fingerprint) {
    return std::nullopt;
  }
  const auto damaged = [&](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("checkpoint '", name, "': ", what));
  };
  const nlohmann::json grids = nlohmann::json::parse(metadata("grids"), nullptr, false);
  if (!grids.is_object()) return damaged("metadata 'grids' is not a JSON object");

  Loaded loaded{.other_host = metadata("host") != identity_.host};
  if (const std::string curve = metadata("curve"); !curve.empty()) {
    if (!google::protobuf::util::JsonStringToMessage(curve, &loaded.curve.emplace()).ok()) {
      return damaged("metadata 'curve' is not a training curve");
    }
  }
  for (const auto& [projection, grid] : grids.items()) {
    QuantizedWeight weight;
    if (!read_grid(grid, weight)) return damaged(absl::StrCat("grid of '", projection, "'"));
    const auto tensor = [&](const char* suffix) {
      const auto found = file->tensors().find(projection + suffix);
      return found == file->tensors().end() ? TensorView() : found->second;
    };
    const auto groups = static_cast<size_t>(weight.rows * (weight.cols / weight.group_size));
    const auto words = static_cast<size_t>(weight.rows * (weight.cols * weight.bits / 32));
    if (!copy_values(tensor(kCodes), Dtype::kU32, words, weight.packed) ||
        !copy_values(tensor(kZeroPoints), Dtype::kU8, groups, weight.zero_points) ||
        !copy_values(tensor(kScales), Dtype::kF32, groups, weight.scales)) {
      return damaged(absl::StrCat("tensors of '", projection, "' do not fit its grid"));
    }
    const int64_t group_count = weight.cols / weight.group_size;
    const auto floats = [&](const char* suffix, int64_t cols, torch::Tensor& out) {
      std::vector<float> values;
      if (!copy_values(tensor(suffix), Dtype::kF32, size_t(weight.rows * cols), values)) {
        return false;
      }
      out = torch::tensor(values).view({weight.rows, cols});
      return true;
    };
    if (file->tensors().contains(projection + kMaster)) {
      MasterWeight& master = loaded.block.masters[projection];
      if (!floats(kMaster, weight.cols, master.weight) ||
          !floats(kMasterScale, group_count, master.qparams.scale) ||
          !floats(kMasterZeroPoint, group_count, master.qparams.zero_point)) {
        return damaged(absl::StrCat("masters of '", projection, "' do not fit its grid"));
      }
    }
    loaded.block.projections[projection] = std::move(weight);
  }
  const nlohmann::json activations =
      nlohmann::json::parse(metadata("activations"), nullptr, /*allow_exceptions=*/false);
  if (!activations.is_object()) return damaged("metadata 'activations' is not a JSON object");
  for (const auto& [projection, quantizer] : activations.items()) {
    if (!read_activation(quantizer, loaded.block.activations[projection])) {
      return damaged(absl::StrCat("activation quantizer of '", projection, "'"));
    }
  }
  for (const auto& [tensor_name, view] : file->tensors()) {
    if (!absl::EndsWith(tensor_name, ".weight")) continue;
    std::vector<float> values;
    if (!copy_values(view, Dtype::kF32, view.bytes.size() / sizeof(float), values)) {
      return damaged(absl::StrCat("tensor '", tensor_name, "' is not F32"));
    }
    loaded.block.norms[tensor_name] = torch::tensor(values);
  }
  return loaded;
}

}  // namespace qaas
