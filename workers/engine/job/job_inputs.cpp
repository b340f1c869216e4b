#include "workers/engine/job/job_inputs.h"

#include <memory>
#include <utility>
#include <vector>

#include <absl/strings/str_cat.h>

#include "proto/spec/job_spec.h"
#include "storage/checkpoint/digest.h"
#include "storage/checkpoint/model_summary.h"
#include "workers/engine/data/dataset.h"
#include "workers/engine/data/dataset_source.h"
#include "workers/engine/data/tokenizer.h"
#include "workers/engine/eval/task_file.h"
#include "workers/engine/job/generated_text.h"

namespace qaas {
namespace {

// Most windows used where the spec does not say how many (job_spec.proto, DataSelection.samples).
constexpr int64_t kMostCalibrationWindows = 4096;
constexpr int64_t kMostEvaluationWindows = 256;

absl::Status refuse(const std::vector<FieldViolation>& violations) {
  if (violations.empty()) return absl::OkStatus();
  std::string text;
  for (const FieldViolation& violation : violations) {
    absl::StrAppend(&text, text.empty() ? "" : "; ", violation.field, ": ", violation.description);
  }
  return absl::InvalidArgumentError(text);
}

/// A dataset is a folder, or for people without the service a single file.
absl::StatusOr<std::string> dataset_digest(const std::filesystem::path& path,
                                           const std::stop_token& stop) {
  std::error_code error;
  return std::filesystem::is_directory(path, error) ? sha256_folder(path, stop) : sha256_file(path);
}

/// Whether `text` may be from the source that calibration is from.
absl::StatusOr<bool> same_source(const v1::JobSpec& spec, const std::filesystem::path& calibration,
                                 const v1::DataSelection& text, const std::filesystem::path& path) {
  if (spec.calibration().has_generated()) return false;
  if (spec.calibration().dataset() == text.dataset()) return true;
  const absl::StatusOr<std::string> calibrated = dataset_source(calibration);
  if (!calibrated.ok()) return calibrated.status();
  const absl::StatusOr<std::string> evaluated = dataset_source(path);
  if (!evaluated.ok()) return evaluated.status();
  return !calibrated->empty() && *calibrated == *evaluated;
}

BeginOfSequence begin_of_sequence(const v1::DataSelection& selection) {
  switch (selection.begin_of_sequence()) {
    case v1::BEGIN_OF_SEQUENCE_NONE:
      return BeginOfSequence::kNone;
    case v1::BEGIN_OF_SEQUENCE_DOCUMENT:
      return BeginOfSequence::kDocument;
    case v1::BEGIN_OF_SEQUENCE_WINDOW:
      return BeginOfSequence::kWindow;
    default:
      return BeginOfSequence::kAsTokenizer;
  }
}

absl::StatusOr<torch::Tensor> load_ids(const std::filesystem::path& path,
                                       const Tokenizer* tokenizer,
                                       const v1::DataSelection& selection, int64_t most,
                                       uint64_t seed, const ModelConfig& config) {
  const absl::StatusOr<TokenWindows> windows = load_windows(
      path, tokenizer,
      {.length = selection.sequence_length(),
       .count = selection.has_samples() ? selection.samples() : 0,
       .max_count = most,
       .choice = selection.sampling() == v1::WINDOW_SAMPLING_RANDOM ? WindowChoice::kRandom
                                                                    : WindowChoice::kFirst,
       .seed = seed,
       .vocab_size = static_cast<int32_t>(config.vocab_size),
       .special_text = selection.parse_special_tokens() ? Tokenizer::SpecialText::kParse
                                                        : Tokenizer::SpecialText::kPlain,
       .begin_of_sequence = begin_of_sequence(selection),
       .bos_id = static_cast<int32_t>(config.bos_token_id),
       .packing = selection.packing() == v1::PACKING_WITHIN_DOCUMENT ? Packing::kWithinDocument
                                                                     : Packing::kConcatenate});
  if (!windows.ok()) return windows.status();
  return torch::tensor(windows->ids).view({windows->count, windows->length}).to(torch::kInt64);
}

/// The folder's tokenizer; null where it has none, which is fine for datasets of ids.
absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer_if_present(
    const std::filesystem::path& folder) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = load_tokenizer(folder);
  if (absl::IsNotFound(tokenizer.status())) return nullptr;
  return tokenizer;
}

/// Reads the datasets of one job, noting the digest of each.
class DatasetReader {
 public:
  DatasetReader(JobInputs& inputs, const RunFolders& folders, std::stop_token stop)
      : inputs_(inputs), spec_(inputs.job.spec()), folders_(folders), stop_(std::move(stop)) {}

  absl::Status read() {
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = tokenizer_if_present(folders_.model);
    if (!tokenizer.ok()) return tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    if (reads_calibration(spec_)) {
      absl::StatusOr<torch::Tensor> ids =
          spec_.calibration().has_generated()
              ? generated_windows(inputs_.model, spec_.calibration(), spec_.seed(), stop_)
              : windows(folders_.calibration, spec_.calibration(), kMostCalibrationWindows);
      if (!ids.ok()) return ids.status();
      inputs_.calibration = *std::move(ids);
    }
    if (const absl::Status status = add_text(folders_.evaluation, spec_.evaluation());
        !status.ok()) {
      return status;
    }
    for (int i = 0; i < spec_.further_evaluations_size(); ++i) {
      const absl::Status status =
          add_text(folders_.further_evaluations[size_t(i)], spec_.further_evaluations(i));
      if (!status.ok()) return status;
    }
    for (int i = 0; i < spec_.tasks_size(); ++i) {
      const absl::Status status = add_task(folders_.tasks[size_t(i)], spec_.tasks(i));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status note_digest(const std::filesystem::path& path, const std::string& dataset) {
    absl::StatusOr<std::string> digest = dataset_digest(path, stop_);
    if (!digest.ok()) return digest.status();
    const auto [known, added] = inputs_.dataset_digests.emplace(dataset, *digest);
    if (added || known->second == *digest) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), " is not the first data that the spec calls '", dataset,
                     "'; give each dataset of the spec a name of its own"));
  }

  absl::StatusOr<torch::Tensor> windows(const std::filesystem::path& path,
                                        const v1::DataSelection& selection, int64_t most) {
    if (const absl::Status status = note_digest(path, selection.dataset()); !status.ok()) {
      return status;
    }
    return load_ids(path, tokenizer_.get(), selection, most, spec_.seed(), inputs_.model.config());
  }

  absl::Status add_text(const std::filesystem::path& path, const v1::DataSelection& selection) {
    absl::StatusOr<torch::Tensor> ids = windows(path, selection, kMostEvaluationWindows);
    if (!ids.ok()) return ids.status();
    inputs_.evaluation.texts.push_back(*std::move(ids));
    absl::StatusOr<bool> same = false;
    if (inputs_.calibration.defined()) {
      same = same_source(spec_, folders_.calibration, selection, path);
    }
    if (!same.ok()) return same.status();
    inputs_.same_source.push_back(*same);
    return absl::OkStatus();
  }

  absl::Status add_task(const std::filesystem::path& path, const std::string& dataset) {
    if (const absl::Status status = note_digest(path, dataset); !status.ok()) return status;
    if (tokenizer_ == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("task '", dataset, "': model '", spec_.model(),
                                                     "' has no tokenizer to read it with"));
    }
    const ModelConfig& config = inputs_.model.config();
    absl::StatusOr<Task> task = load_task(path, *tokenizer_,
                                          {.max_length = config.max_position_embeddings,
                                           .vocab_size = static_cast<int32_t>(config.vocab_size)});
    if (!task.ok()) return task.status();
    inputs_.evaluation.tasks.push_back(*std::move(task));
    return absl::OkStatus();
  }

  JobInputs& inputs_;
  const v1::JobSpec& spec_;
  const RunFolders& folders_;
  std::stop_token stop_;
  std::unique_ptr<Tokenizer> tokenizer_;  // null where the model has none
};

}  // namespace

absl::StatusOr<JobInputs> load_inputs(const v1::Job& job, const RunFolders& folders,
                                      std::stop_token stop) {
  // 1. Model and spec.
  absl::StatusOr<ModelFolder> model = ModelFolder::open(folders.model);
  if (!model.ok()) return model.status();
  const v1::Model summary = summarize(*model);
  if (const absl::Status status = refuse(validate(job.spec())); !status.ok()) return status;
  if (const absl::Status status = refuse(validate_for_model(job.spec(), summary)); !status.ok()) {
    return status;
  }
  JobInputs inputs{.job = job, .model = *std::move(model)};
  *inputs.job.mutable_spec() = with_defaults(job.spec(), summary);
  const v1::JobSpec& spec = inputs.job.spec();

  // 2. Digests.
  absl::StatusOr<std::string> digest = sha256_folder(folders.model, stop);
  if (!digest.ok()) return digest.status();
  inputs.model_digest = *std::move(digest);
  if (!job.model_digest().empty() && job.model_digest() != inputs.model_digest) {
    return absl::FailedPreconditionError(absl::StrCat(
        "model '", spec.model(), "' has changed since the job was submitted: SHA-256 is ",
        inputs.model_digest, ", expected ", job.model_digest()));
  }

  // 3. Data.
  const absl::Status read = DatasetReader(inputs, folders, stop).read();
  if (!read.ok()) return read;
  return inputs;
}

}  // namespace qaas
