#include "storage/checkpoint/model_folder.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <optional>
#include <set>

#include <absl/status/status.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/folder_entry.h"
#include "storage/checkpoint/strict_json.h"
#include "storage/checkpoint/tensor_rules.h"

namespace qaas {
namespace {

using nlohmann::json;

constexpr char kConfigFile[] = "config.json";
constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr char kEmbedding[] = "model.embed_tokens.weight";
constexpr char kHead[] = "lm_head.weight";
constexpr int64_t kMaxConfigBytes = 4 << 20;
constexpr int64_t kMaxIndexBytes = 100'000'000;

/// Tensor name to the file that holds it.
using WeightMap = std::map<std::string, std::string>;

absl::Status in_file(const std::filesystem::path& folder, const char* file,
                     const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat((folder / file).string(), ": ", status.message()));
}

absl::StatusOr<WeightMap> parse_index(std::string_view text) {
  const auto document = parse_strict_json(text, {.max_depth = 4, .max_values = kMaxTensors + 1000});
  if (!document.ok()) return document.status();
  const auto weight_map = document->is_object() ? document->find("weight_map") : document->end();
  if (weight_map == document->end() || !weight_map->is_object() || weight_map->empty()) {
    return absl::InvalidArgumentError("expected an object 'weight_map' that is not empty");
  }
  WeightMap files;
  for (const auto& [tensor, file] : weight_map->items()) {
    if (!file.is_string() || !absl::EndsWith(file.get_ref<const std::string&>(), ".safetensors")) {
      return absl::InvalidArgumentError(absl::StrCat("weight_map: tensor '", tensor, "' is in ",
                                                     describe_json(file),
                                                     ", expected the name of a .safetensors file"));
    }
    files[tensor] = file.get<std::string>();
  }
  return files;
}

bool is_ignored(const std::string& tensor) {
  return absl::EndsWith(tensor, ".rotary_emb.inv_freq");
}

bool is_side_file(const std::string& name) {
  constexpr std::array kLeftOut = {".safetensors", ".index.json", ".bin",    ".pt",
                                   ".pth",         ".pkl",        ".pickle", ".ckpt"};
  return std::none_of(kLeftOut.begin(), kLeftOut.end(),
                      [&name](const char* suffix) { return absl::EndsWith(name, suffix); });
}

bool has(const std::vector<std::string>& sorted, const std::string& name) {
  return std::binary_search(sorted.begin(), sorted.end(), name);
}

absl::StatusOr<SafetensorsFile> open_weights(const std::filesystem::path& folder,
                                             const std::string& name) {
  const auto path = resolve_inside(folder, name);
  if (!path.ok()) return path.status();
  return SafetensorsFile::open(*path);
}

/// Each tensor of a shard must be the index's, and the other way round.
absl::Status check_against_index(const SafetensorsFile& file, const std::string& name,
                                 const WeightMap& index) {
  for (const auto& [tensor, view] : file.tensors()) {
    const auto mapped = index.find(tensor);
    if (mapped == index.end() || mapped->second != name) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor '", tensor, "' is in ", name, ", but the index says ",
          mapped == index.end() ? "nothing of it" : absl::StrCat("it is in ", mapped->second)));
    }
  }
  for (const auto& [tensor, mapped] : index) {
    if (mapped == name && !file.tensors().contains(tensor)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", tensor, "' is not in ", name, ", where the index says it is"));
    }
  }
  return absl::OkStatus();
}

/// A tied model needs no head; some files carry one all the same. It may stay only as a copy.
absl::Status drop_tied_head(std::map<std::string, TensorView>& tensors) {
  const auto head = tensors.find(kHead);
  if (head == tensors.end()) return absl::OkStatus();
  const auto embedding = tensors.find(kEmbedding);
  const bool copy = embedding != tensors.end() && head->second.dtype == embedding->second.dtype &&
                    head->second.shape == embedding->second.shape &&
                    std::equal(head->second.bytes.begin(), head->second.bytes.end(),
                               embedding->second.bytes.begin(), embedding->second.bytes.end());
  if (!copy) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor '", kHead, "' differs from '", kEmbedding,
        "', but config.json says tie_word_embeddings true; remove the tensor or say false"));
  }
  tensors.erase(head);
  return absl::OkStatus();
}

absl::Status check_tensors(const ModelConfig& config,
                           const std::map<std::string, TensorView>& tensors) {
  std::set<std::string> expected_names;
  for (const ExpectedTensor& expected : expected_tensors(config)) {
    const auto found = tensors.find(expected.name);
    if (found == tensors.end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor '", expected.name, "' is missing, config.json expects it with shape ",
          shape_text(expected.shape),
          expected.name == kHead ? " (unless it says tie_word_embeddings true)" : ""));
    }
    const TensorView& view = found->second;
    if (view.shape != expected.shape) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", expected.name, "': shape ",
                                                     shape_text(view.shape), ", config.json says ",
                                                     shape_text(expected.shape)));
    }
    if (view.dtype != Dtype::kF32 && view.dtype != Dtype::kF16 && view.dtype != Dtype::kBf16) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", expected.name, "': dtype ",
                                                     dtype_name(view.dtype),
                                                     ", accepted: F32, F16, BF16"));
    }
    expected_names.insert(expected.name);
  }
  for (const auto& [name, view] : tensors) {
    if (!expected_names.contains(name)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor '", name, "' of shape ", shape_text(view.shape), " is not part of a ",
          config.architecture, " model as config.json describes it"));
    }
  }
  return absl::OkStatus();
}

/// The names of the weight files, and the index where there is one.
struct WeightFiles {
  std::set<std::string> names;
  std::optional<WeightMap> index;
};

absl::StatusOr<WeightFiles> find_weights(const std::filesystem::path& folder,
                                         const std::vector<std::string>& names) {
  const bool single = has(names, kSingleFile);
  const bool sharded = has(names, kIndexFile);
  if (single && sharded) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder.string(), ": holds both ", kSingleFile, " and ", kIndexFile,
                     "; remove the index to use the single file, or the single file to use the "
                     "shards"));
  }
  if (single) return WeightFiles{.names = {kSingleFile}};
  if (!sharded) {
    return absl::NotFoundError(absl::StrCat(folder.string(), ": holds neither ", kSingleFile,
                                            " nor ", kIndexFile,
                                            " (other weight formats are not read)"));
  }
  const auto text = read_inside(folder, kIndexFile, kMaxIndexBytes);
  if (!text.ok()) return text.status();
  auto index = parse_index(*text);
  if (!index.ok()) return in_file(folder, kIndexFile, index.status());
  WeightFiles files;
  for (const auto& [tensor, file] : *index) files.names.insert(file);
  files.index = *std::move(index);
  return files;
}

}  // namespace

absl::StatusOr<ModelFolder> ModelFolder::open(const std::filesystem::path& folder) {
  ModelFolder model;
  model.path_ = folder;
  const auto names = folder_files(folder);
  if (!names.ok()) return names.status();

  const auto config_text = read_inside(folder, kConfigFile, kMaxConfigBytes);
  if (!config_text.ok()) return config_text.status();
  auto config = parse_model_config(*config_text);
  if (!config.ok()) return in_file(folder, kConfigFile, config.status());
  model.config_ = *std::move(config);

  const auto weights = find_weights(folder, *names);
  if (!weights.ok()) return weights.status();
  for (const std::string& name : weights->names) {
    auto file = open_weights(folder, name);
    if (!file.ok()) return file.status();
    if (weights->index) {
      if (auto status = check_against_index(*file, name, *weights->index); !status.ok()) {
        return in_file(folder, kIndexFile, status);
      }
    }
    for (const auto& [tensor, view] : file->tensors()) {
      if (!is_ignored(tensor)) model.tensors_.emplace(tensor, view);
    }
    model.weight_bytes_ += file->file_size();
    model.files_.push_back(*std::move(file));
  }

  const auto in_folder = [&folder](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat(folder.string(), ": ", status.message()));
  };
  if (model.config_.tie_word_embeddings) {
    if (auto status = drop_tied_head(model.tensors_); !status.ok()) return in_folder(status);
  }
  if (auto status = check_tensors(model.config_, model.tensors_); !status.ok()) {
    return in_folder(status);
  }

  for (const std::string& name : *names) {
    if (!is_side_file(name)) continue;
    // A side file is copied into artifacts: one that points out of the folder must not be.
    if (auto path = resolve_inside(folder, name); !path.ok()) return path.status();
    model.side_files_.push_back(name);
  }
  return model;
}

const TensorView& ModelFolder::tensor(const std::string& name) const {
  const auto it = tensors_.find(name);
  assert(it != tensors_.end());
  return it->second;
}

absl::Status ModelFolder::check_unchanged() const {
  for (const SafetensorsFile& file : files_) {
    if (auto status = file.check_unchanged(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace qaas
