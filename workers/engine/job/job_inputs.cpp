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

absl::StatusOr<bool> same_source(const v1::JobSpec& spec, const RunFolders& folders) {
  if (spec.calibration().has_generated()) return false;
  if (spec.calibration().dataset() == spec.evaluation().dataset()) return true;
  const absl::StatusOr<std::string> calibration = dataset_source(folders.calibration);
  if (!calibration.ok()) return calibration.status();
  const absl::StatusOr<std::string> evaluation = dataset_source(folders.evaluation);
  if (!evaluation.ok()) return evaluation.status();
  return !calibration->empty() && *calibration == *evaluation;
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
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = tokenizer_if_present(folders.model);
  if (!tokenizer.ok()) return tokenizer.status();
  const auto load = [&](const std::filesystem::path& path, const v1::DataSelection& selection,
                        int64_t most) -> absl::StatusOr<torch::Tensor> {
    absl::StatusOr<std::string> data_digest = dataset_digest(path, stop);
    if (!data_digest.ok()) return data_digest.status();
    const auto [known, added] = inputs.dataset_digests.emplace(selection.dataset(), *data_digest);
    if (!added && known->second != *data_digest) {
      return absl::InvalidArgumentError(
          absl::StrCat(folders.calibration.string(), " and ", folders.evaluation.string(),
                       " differ, but the spec calls both '", selection.dataset(),
                       "'; give calibration.dataset or evaluation.dataset another name"));
    }
    return load_ids(path, tokenizer->get(), selection, most, spec.seed(), inputs.model.config());
  };
  if (spec.method() != v1::METHOD_ROUND_TO_NEAREST) {
    absl::StatusOr<torch::Tensor> ids =
        spec.calibration().has_generated()
            ? generated_windows(inputs.model, spec.calibration(), spec.seed(), stop)
            : load(folders.calibration, spec.calibration(), kMostCalibrationWindows);
    if (!ids.ok()) return ids.status();
    inputs.calibration = *std::move(ids);
    const absl::StatusOr<bool> same = same_source(spec, folders);
    if (!same.ok()) return same.status();
    inputs.same_source = *same;
  }
  absl::StatusOr<torch::Tensor> ids =
      load(folders.evaluation, spec.evaluation(), kMostEvaluationWindows);
  if (!ids.ok()) return ids.status();
  inputs.evaluation = *std::move(ids);
  return inputs;
}

}  // namespace qaas
