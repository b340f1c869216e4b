#include "workers/engine/job/evaluate_folder.h"

#include <algorithm>
#include <memory>
#include <system_error>
#include <utility>

#include <absl/strings/str_format.h>

#include "workers/engine/data/dataset.h"
#include "workers/engine/data/tokenizer.h"
#include "workers/engine/eval/task_file.h"
#include "workers/engine/job/artifact.h"

namespace qaas {
namespace {

constexpr int64_t kDefaultSequenceLength = 2048;
constexpr int64_t kMostWindows = 256;

/// Either kind of folder behind what scoring needs. Keeps the files mapped.
struct OpenedFolder {
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

absl::StatusOr<OpenedFolder> open_either(const std::filesystem::path& path) {
  OpenedFolder model;
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

absl::StatusOr<EvaluationScores> score(const OpenedFolder& model, const EvaluationInputs& inputs,
                                       const ScoreReference* reference, std::stop_token stop) {
  return evaluate_model({.ends = model.ends,
                         .block_count = model.config().num_hidden_layers,
                         .block = [&](int64_t index) { return model.block(index); },
                         .rope = make_rope_table(model.config(), inputs.longest())},
                        inputs, reference, {}, stop);
}

absl::StatusOr<EvaluationInputs> read_inputs(const EvaluateOptions& options,
                                             const ModelConfig& config) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = load_tokenizer(options.model);
  const bool without_tokenizer = absl::IsNotFound(tokenizer.status());
  if (!tokenizer.ok() && (!without_tokenizer || !options.tasks.empty())) return tokenizer.status();
  const auto vocab_size = static_cast<int32_t>(config.vocab_size);
  EvaluationInputs inputs;
  for (const std::filesystem::path& path : options.texts) {
    const absl::StatusOr<TokenWindows> windows = load_windows(
        path, without_tokenizer ? nullptr : tokenizer->get(),
        {.length = options.sequence_length > 0
                       ? options.sequence_length
                       : std::min(kDefaultSequenceLength, config.max_position_embeddings),
         .count = options.samples,
         .max_count = kMostWindows,
         .vocab_size = vocab_size});
    if (!windows.ok()) return windows.status();
    inputs.texts.push_back(
        torch::tensor(windows->ids).view({windows->count, windows->length}).to(torch::kInt64));
  }
  for (const std::filesystem::path& path : options.tasks) {
    absl::StatusOr<Task> task = load_task(path, **tokenizer,
                                          {.max_length = config.max_position_embeddings,
                                           .max_questions = options.questions,
                                           .vocab_size = vocab_size});
    if (!task.ok()) return task.status();
    inputs.tasks.push_back(*std::move(task));
  }
  return inputs;
}

std::string name_of(const std::filesystem::path& path) {
  const std::filesystem::path plain = path.lexically_normal();
  return (plain.has_filename() ? plain : plain.parent_path()).filename().string();
}

}  // namespace

absl::StatusOr<FolderScore> evaluate_folder(const EvaluateOptions& options, std::stop_token stop) {
  if (options.texts.empty() && options.tasks.empty()) {
    return absl::InvalidArgumentError("nothing to evaluate on: give a text or a task");
  }
  absl::StatusOr<OpenedFolder> model = open_either(options.model);
  if (!model.ok()) return model.status();
  const absl::StatusOr<EvaluationInputs> inputs = read_inputs(options, model->config());
  if (!inputs.ok()) return inputs.status();

  std::optional<OpenedFolder> original;
  std::optional<EvaluationScores> original_scores;
  std::optional<ScoreReference> reference;
  if (!options.original.empty()) {
    absl::StatusOr<OpenedFolder> opened = open_either(options.original);
    if (!opened.ok()) return opened.status();
    original = *std::move(opened);
    if (original->config().vocab_size != model->config().vocab_size) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "original has a vocabulary of %d, model one of %d: their distributions cannot be "
          "compared",
          original->config().vocab_size, model->config().vocab_size));
    }
    absl::StatusOr<EvaluationScores> scores = score(*original, *inputs, nullptr, stop);
    if (!scores.ok()) return scores.status();
    original_scores = *std::move(scores);
    reference.emplace(ScoreReference{original->ends, original_scores->texts});
  }
  const absl::StatusOr<EvaluationScores> scores =
      score(*model, *inputs, reference.has_value() ? &*reference : nullptr, stop);
  if (!scores.ok()) return scores.status();

  FolderScore result;
  for (size_t i = 0; i < inputs->texts.size(); ++i) {
    FolderScore::Text& text = result.texts.emplace_back();
    text = {.name = name_of(options.texts[i]),
            .windows = inputs->texts[i].size(0),
            .sequence_length = inputs->texts[i].size(1),
            .model = scores->texts[i].score};
    if (original_scores.has_value()) text.original = original_scores->texts[i].score;
  }
  for (size_t i = 0; i < inputs->tasks.size(); ++i) {
    FolderScore::Choices& task = result.tasks.emplace_back();
    task.model = scores->tasks[i].score;
    if (original_scores.has_value()) task.original = original_scores->tasks[i].score;
  }
  return result;
}

}  // namespace qaas
