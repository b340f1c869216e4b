#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

#include "storage/checkpoint/safetensors.h"
#include "workers/engine/job/block_checkpoints.h"

namespace qaas {
namespace {

constexpr char kName[] = "end-to-end-state.safetensors", kVersion[] = "1";
constexpr char kLosses[] = "losses", kValidationLosses[] = "validation_losses",
               kValidationSteps[] = "validation_steps";

template <class T>
void append(std::vector<TensorToWrite>& tensors, const char* name, Dtype dtype,
            const std::vector<T>& values) {
  if (values.empty()) return;
  tensors.push_back({name,
                     dtype,
                     {static_cast<int64_t>(values.size())},
                     std::as_bytes(std::span<const T>(values))});
}

/// The values of a tensor that may be absent; false if it is of another type.
template <class T>
bool read_values(const SafetensorsFile& file, const char* name, Dtype dtype, std::vector<T>& out) {
  const auto found = file.tensors().find(name);
  if (found == file.tensors().end()) return true;
  if (found->second.dtype != dtype) return false;
  out.resize(found->second.bytes.size() / sizeof(T));
  std::memcpy(out.data(), found->second.bytes.data(), found->second.bytes.size());
  return true;
}

}  // namespace

absl::StatusOr<std::string> BlockCheckpoints::save_state(const EndToEndState& state) const {
  std::vector<TensorToWrite> tensors;
  std::vector<torch::Tensor> kept;  // keep the bytes alive
  for (const auto& [name, tensor] : state.tensors) {
    kept.push_back(tensor.detach().cpu().contiguous());
    const auto* values = kept.back().data_ptr<float>();
    tensors.push_back(
        {name, Dtype::kF32, tensor.sizes().vec(),
         std::as_bytes(std::span<const float>(values, static_cast<size_t>(tensor.numel())))});
  }
  append(tensors, kLosses, Dtype::kF64, state.losses);
  append(tensors, kValidationLosses, Dtype::kF64, state.validation_losses);
  append(tensors, kValidationSteps, Dtype::kI64, state.validation_steps);
  const absl::Status status = write_safetensors(folder_ / kName, std::move(tensors),
                                                {{"qaas_checkpoint_version", kVersion},
                                                 {"fingerprint", identity_.fingerprint},
                                                 {"host", identity_.host},
                                                 {"step", absl::StrCat(state.step)}});
  if (!status.ok()) return status;
  return kName;
}

absl::StatusOr<std::optional<BlockCheckpoints::LoadedState>> BlockCheckpoints::load_state() const {
  std::error_code error;
  if (!std::filesystem::exists(folder_ / kName, error)) return std::nullopt;
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::open(folder_ / kName);
  if (!file.ok()) return file.status();
  const auto metadata = [&](const char* key) {
    const auto found = file->metadata().find(key);
    return found == file->metadata().end() ? std::string() : found->second;
  };
  if (metadata("qaas_checkpoint_version") != kVersion ||
      metadata("fingerprint") != identity_.fingerprint) {
    return std::nullopt;
  }
  LoadedState loaded{.other_host = metadata("host") != identity_.host};
  EndToEndState& state = loaded.state;
  if (!absl::SimpleAtoi(metadata("step"), &state.step) || state.step < 0 ||
      !read_values(*file, kLosses, Dtype::kF64, state.losses) ||
      !read_values(*file, kValidationLosses, Dtype::kF64, state.validation_losses) ||
      !read_values(*file, kValidationSteps, Dtype::kI64, state.validation_steps) ||
      static_cast<int64_t>(state.losses.size()) != state.step ||
      state.validation_steps.size() != state.validation_losses.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("checkpoint '", kName, "': step '", metadata("step"),
                     "' and the histories of losses do not fit each other"));
  }
  for (const auto& [name, view] : file->tensors()) {
    if (name.find('/') == std::string::npos) continue;  // a history
    if (view.dtype != Dtype::kF32) {
      return absl::InvalidArgumentError(
          absl::StrCat("checkpoint '", kName, "': tensor '", name, "' is not F32"));
    }
    torch::Tensor values = torch::empty(view.shape, torch::kFloat32);
    std::memcpy(values.data_ptr(), view.bytes.data(), view.bytes.size());
    state.tensors[name] = std::move(values);
  }
  return loaded;
}

}  // namespace qaas
