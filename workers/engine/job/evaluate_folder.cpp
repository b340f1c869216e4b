#include "workers/engine/job/evaluate_folder.h"

#include <algorithm>
#include <memory>
#include <system_error>
#include <utility>

#include <absl/strings/str_format.h>

#include "workers/engine/data/dataset.h"
#include "workers/engine/data/tokenizer.h"
#include "workers/engine/job/artifact.h"

namespace qaas {
namespace {

constexpr int64_t kDefaultSequenceLength = 2048;
constexpr int64_t kMostWindows = 256;

/// Either kind of folder behind what scoring needs. Keeps the files mapped.
struct ScorableModel {
  std::unique_ptr<ModelFolder> folder;       ///< full precision
  std::unique_ptr<LoadedArtifact> artifact;  ///< quantized
  ModelEnds ends;

  const ModelConfig& config() const {
    return folder ? folder->config() : artifact->reader.config();
  }
  absl::StatusOr<DecoderBlock> block(int64_t index) const {
    if (folder) {
      if (const absl::Status status = folder->check_unchanged(); !status.ok()) return status;
      return load_block(folder->config(), source_tensors(*folder), index);
    }
    return load_artifact_block(artifact->reader, index);
  }
};

absl::StatusOr<ScorableModel> open_either(const std::filesystem::path& path) {
  ScorableModel model;
  std::error_code error;
  if (std::filesystem::exists(path / "quantize_config.json", error)) {
    absl::StatusOr<LoadedArtifact> artifact = load_artifact(path);
    if (!artifact.ok()) return artifact.status();
    model.artifact = std::make_unique<LoadedArtifact>(*std::move(artifact));
    model.ends = model.artifact->ends;
    return model;
  }
  absl::StatusOr<ModelFolder> folder = ModelFolder::open(path);
  if (!folder.ok()) return folder.status();
  model.folder = std::make_unique<ModelFolder>(*std::move(folder));
  model.ends = load_ends(model.folder->config(), source_tensors(*model.folder));
  return model;
}

absl::StatusOr<ScoredModel> score(const ScorableModel& model, const torch::Tensor& ids,
                                  const ScorableModel& reference_model,
                                  const ScoredModel* reference, std::stop_token stop) {
  return score_model(
      model.ends, model.config().num_hidden_layers,
      [&](int64_t index) { return model.block(index); }, ids,
      make_rope_table(model.config(), ids.size(1)), reference_model.ends, reference, [](double) {},
      stop);
}

}  // namespace

std::string FolderScore::to_text() const {
  std::string text = absl::StrFormat("windows %d x %d  loss %.6f  perplexity %.4f", windows,
                                     sequence_length, score.loss, score.perplexity);
  if (has_divergence) text += absl::StrFormat("  kl %.6f", score.kl_divergence);
  return text + "\n";
}

absl::StatusOr<FolderScore> evaluate_folder(const EvaluateOptions& options, std::stop_token stop) {
  absl::StatusOr<ScorableModel> model = open_either(options.model);
  if (!model.ok()) return model.status();
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = load_tokenizer(options.model);
  if (!tokenizer.ok() && !absl::IsNotFound(tokenizer.status())) return tokenizer.status();
  const ModelConfig& config = model->config();
  const absl::StatusOr<TokenWindows> windows = load_windows(
      options.evaluation, tokenizer.ok() ? tokenizer->get() : nullptr,
      {.length = options.sequence_length > 0
                     ? options.sequence_length
                     : std::min(kDefaultSequenceLength, config.max_position_embeddings),
       .count = options.samples,
       .max_count = kMostWindows,
       .vocab_size = static_cast<int32_t>(config.vocab_size)});
  if (!windows.ok()) return windows.status();
  const torch::Tensor ids =
      torch::tensor(windows->ids).view({windows->count, windows->length}).to(torch::kInt64);

  FolderScore result{.windows = windows->count, .sequence_length = windows->length};
  if (options.original.empty()) {
    const absl::StatusOr<ScoredModel> scored = score(*model, ids, *model, nullptr, stop);
    if (!scored.ok()) return scored.status();
    result.score = scored->score;
    return result;
  }
  const absl::StatusOr<ScorableModel> original = open_either(options.original);
  if (!original.ok()) return original.status();
  if (original->config().vocab_size != config.vocab_size) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "original has a vocabulary of %d, model one of %d: their distributions cannot be compared",
        original->config().vocab_size, config.vocab_size));
  }
  const absl::StatusOr<ScoredModel> reference = score(*original, ids, *original, nullptr, stop);
  if (!reference.ok()) return reference.status();
  const absl::StatusOr<ScoredModel> scored = score(*model, ids, *original, &*reference, stop);
  if (!scored.ok()) return scored.status();
  result.score = scored->score;
  result.has_divergence = true;
  return result;
}

}  // namespace qaas
