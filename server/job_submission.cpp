#include "server/job_submission.h"

#include <memory>
#include <utility>
#include <vector>

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "proto/spec/job_spec.h"
#include "server/errors.h"
#include "server/forecast/forecast.h"
#include "server/resource_names.h"
#include "storage/checkpoint/digest.h"

namespace qaas {
namespace {

constexpr std::chrono::milliseconds kScanRetry{2000};
constexpr size_t kNamesShown = 5;

absl::Status refuse_spec(std::vector<FieldViolation> violations) {
  for (FieldViolation& violation : violations) {
    violation.field = violation.field.empty() ? "spec" : absl::StrCat("spec.", violation.field);
  }
  return invalid_fields(violations);
}

// "; there are: a, b, c and 4 more": a few names help against typing errors.
std::string known_names(std::vector<std::string> names) {
  if (names.empty()) return "; there is none";
  const size_t left = names.size() > kNamesShown ? names.size() - kNamesShown : 0;
  names.resize(names.size() - left);
  return absl::StrCat("; there ", names.size() == 1 ? "is " : "are ", absl::StrJoin(names, ", "),
                      left == 0 ? "" : absl::StrCat(" and ", left, " more"));
}

absl::StatusOr<std::shared_ptr<const v1::Model>> usable_model(const std::string& name,
                                                              const FolderRegistry& folders) {
  const absl::StatusOr<std::string> folder = parse_model_name(name, "spec.model");
  if (!folder.ok()) return folder.status();
  std::shared_ptr<const v1::Model> model = folders.model(*folder);
  if (!model) {
    std::vector<std::string> names;
    for (const auto& known : folders.models()) names.push_back(known->name());
    return invalid_field("spec.model",
                         absl::StrCat("no model '", name, "'", known_names(std::move(names))));
  }
  switch (model->state()) {
    case v1::Model::STATE_READY:
      return model;
    case v1::Model::STATE_INVALID:
      return invalid_field("spec.model",
                           absl::StrCat("model '", name, "' cannot be used: ", model->error()));
    default:
      return retry_after(
          refusal(absl::StatusCode::kFailedPrecondition, "MODEL_SCANNING",
                  absl::StrCat("model '", name,
                               "' is new or has changed; its digest is being computed"),
                  {{"model", name}}),
          kScanRetry);
  }
}

void check_dataset(const std::string& field, const std::string& name, const FolderRegistry& folders,
                   std::vector<FieldViolation>& violations) {
  const absl::StatusOr<std::string> folder = parse_dataset_name(name, field);
  const auto dataset = folder.ok() ? folders.dataset(*folder) : nullptr;
  if (!dataset) {
    std::vector<std::string> names;
    for (const std::string& known : folders.dataset_names()) names.push_back(dataset_name(known));
    violations.push_back(
        {.field = field,
         .description = absl::StrCat("no dataset '", name, "'", known_names(std::move(names)))});
  } else if (!dataset->problem.empty()) {
    violations.push_back(
        {.field = field,
         .description = absl::StrCat("dataset '", name, "' cannot be used: ", dataset->problem)});
  }
}

void check_datasets(const v1::JobSpec& spec, const FolderRegistry& folders,
                    std::vector<FieldViolation>& violations) {
  // Text that the model writes itself has no dataset.
  if (spec.has_calibration() && !spec.calibration().has_generated()) {
    check_dataset("calibration.dataset", spec.calibration().dataset(), folders, violations);
  }
  check_dataset("evaluation.dataset", spec.evaluation().dataset(), folders, violations);
  for (int i = 0; i < spec.further_evaluations_size(); ++i) {
    check_dataset(absl::StrCat("further_evaluations[", i, "].dataset"),
                  spec.further_evaluations(i).dataset(), folders, violations);
  }
  for (int i = 0; i < spec.tasks_size(); ++i) {
    check_dataset(absl::StrCat("tasks[", i, "]"), spec.tasks(i), folders, violations);
  }
}

}  // namespace

absl::StatusOr<v1::Job> prepare_job(const v1::JobSpec& spec, const FolderRegistry& folders) {
  std::vector<FieldViolation> violations = validate(spec);
  if (!violations.empty()) return refuse_spec(std::move(violations));

  const auto model = usable_model(spec.model(), folders);
  if (!model.ok()) return model.status();

  check_datasets(spec, folders, violations);
  for (FieldViolation& violation : validate_for_model(spec, **model)) {
    violations.push_back(std::move(violation));
  }
  if (!violations.empty()) return refuse_spec(std::move(violations));

  v1::Job job;
  job.set_state(v1::JOB_STATE_QUEUED);
  *job.mutable_spec() = with_defaults(spec, **model);
  *job.mutable_forecast() = make_forecast(spec, **model);
  job.set_model_digest((*model)->sha256());
  return job;
}

absl::Status check_request_id(const std::string& request_id) {
  if (request_id.empty() || is_canonical_uuid(request_id)) return absl::OkStatus();
  return invalid_field("request_id",
                       absl::StrCat("found '", absl::CHexEscape(request_id.substr(0, 80)),
                                    "'; expected a UUID in lower case such as "
                                    "0b1c7f3e-5d0a-4c57-9a3e-2f6f0e3b8f11"));
}

absl::StatusOr<std::string> request_fingerprint(const v1::SubmitJobRequest& request) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    request.SerializeToCodedStream(&coded);
  }
  return sha256_text(bytes);
}

}  // namespace qaas
