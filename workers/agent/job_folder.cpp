#include "workers/agent/job_folder.h"

#include <cerrno>
#include <fstream>
#include <system_error>
#include <utility>

#include <absl/strings/str_cat.h>
#include <google/protobuf/util/json_util.h>

#include "storage/artifacts/file_copy.h"
#include "workers/agent/child_process.h"
#include "workers/agent/resource_names.h"

namespace qaas {

namespace fs = std::filesystem;

absl::Status JobFolder::write(const v1::Job& job) const {
  std::string json;
  const auto printed = google::protobuf::util::MessageToJsonString(job, &json);
  if (!printed.ok()) {
    return absl::InternalError(absl::StrCat("job as JSON: ", printed.ToString()));
  }
  std::error_code error;
  for (const fs::path& folder : {checkpoints(), artifact()}) {
    fs::create_directory(folder, error);
    if (error) {
      return io_error(error.value(), "scratch folder of the attempt");
    }
  }
  std::ofstream out(path_ / "job.json", std::ios::binary);
  out << json << '\n';
  out.close();
  if (!out) {
    return io_error(errno, "cannot write job.json");
  }
  return absl::OkStatus();
}

absl::Status JobFolder::place_checkpoints(ArtifactStore& artifacts,
                                          const std::vector<StoredFile>& files,
                                          std::vector<std::string>& warnings) const {
  for (const StoredFile& file : files) {
    if (!is_plain_name(file.name)) {
      warnings.push_back("a checkpoint of an earlier attempt has no usable name; left out");
      continue;
    }
    const fs::path path = checkpoints() / file.name;
    const auto fetched = artifacts.fetch(file.key, path);
    if (absl::IsNotFound(fetched.status())) {
      warnings.push_back(
          absl::StrCat("checkpoint '", file.name, "' of an earlier attempt is missing; left out"));
      continue;
    }
    if (!fetched.ok()) {
      return fetched.status();
    }
    if (fetched->sha256 != file.sha256 || fetched->size_bytes != file.size_bytes) {
      warnings.push_back(absl::StrCat(
          "checkpoint '", file.name, "' of an earlier attempt is corrupt (", fetched->size_bytes,
          " bytes, expected ", file.size_bytes, ", or another SHA-256); left out"));
      std::error_code error;
      fs::remove(path, error);
      if (error) {
        return io_error(error.value(), "cannot remove a corrupt checkpoint");
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> JobFolder::engine_arguments(const v1::JobSpec& spec,
                                                                     const JobRoots& roots) const {
  const auto model = resolve_resource(roots.models, "models", spec.model());
  if (!model.ok()) {
    return model.status();
  }
  const auto evaluation = resolve_resource(roots.datasets, "datasets", spec.evaluation().dataset());
  if (!evaluation.ok()) {
    return evaluation.status();
  }
  std::vector<std::string> arguments{roots.engine.string(),
                                     "run",
                                     "--job",
                                     (path_ / "job.json").string(),
                                     "--model",
                                     model->string(),
                                     "--evaluation",
                                     evaluation->string(),
                                     "--out",
                                     artifact(),
                                     "--checkpoints",
                                     checkpoints(),
                                     "--events-fd",
                                     absl::StrCat(kChildEventsDescriptor),
                                     "--threads",
                                     absl::StrCat(roots.threads)};
  // Text that the model writes itself has no dataset.
  const bool reads_calibration = spec.has_calibration() && !spec.calibration().has_generated();
  std::vector<std::pair<std::string, std::string>> datasets;  // flag, name
  if (reads_calibration) {
    datasets.emplace_back("--calibration", spec.calibration().dataset());
  }
  for (const v1::DataSelection& further : spec.further_evaluations()) {
    datasets.emplace_back("--further-evaluation", further.dataset());
  }
  for (const std::string& task : spec.tasks()) {
    datasets.emplace_back("--task", task);
  }
  for (const auto& [flag, name] : datasets) {
    const auto folder = resolve_resource(roots.datasets, "datasets", name);
    if (!folder.ok()) {
      return folder.status();
    }
    arguments.insert(arguments.end(), {flag, folder->string()});
  }
  return arguments;
}

}  // namespace qaas
