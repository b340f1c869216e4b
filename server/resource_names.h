#pragma once

#include <string>

#include <absl/status/statusor.h>

/// Resource names of the API ("jobs/{job}"), read and written here only. Strict: one spelling per
/// resource, so a name can be used as a key, and no name can reach outside a folder.
/// Each parser returns kInvalidArgument with a field violation for `field` when the name has
/// another form; whether the resource exists is the caller's question.
namespace qaas {

/// A UUID in the form the service prints: 36 characters, lower case.
bool is_canonical_uuid(const std::string& text);

/// A folder name that can be a resource id: 1 to 128 letters, digits, '.', '_' and '-', beginning
/// with a letter or a digit. Excludes "..", hidden names and separators.
bool is_folder_id(const std::string& text);

std::string job_name(const std::string& job_id);
std::string model_name(const std::string& folder);
std::string dataset_name(const std::string& folder);
std::string artifact_name(const std::string& job_id, const std::string& file);

/// "jobs/{job}" → the job's id, a lower-case UUID.
absl::StatusOr<std::string> parse_job_name(const std::string& name, const std::string& field);
/// "models/{model}" → the folder's name.
absl::StatusOr<std::string> parse_model_name(const std::string& name, const std::string& field);
/// "datasets/{dataset}" → the folder's name.
absl::StatusOr<std::string> parse_dataset_name(const std::string& name, const std::string& field);

struct ArtifactName {
  std::string job_id;
  std::string file;
};
/// "jobs/{job}/artifacts/{file}".
absl::StatusOr<ArtifactName> parse_artifact_name(const std::string& name, const std::string& field);

}  // namespace qaas
