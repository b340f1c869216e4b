#include "server/resource_names.h"

#include <cstddef>
#include <vector>

#include <absl/strings/ascii.h>
#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>

#include "server/errors.h"

namespace qaas {
namespace {

constexpr size_t kLongestFolderId = 128;

absl::Status refuse(const std::string& name, const std::string& field, const std::string& form) {
  const std::string found =
      name.empty() ? "missing" : absl::StrCat("found '", absl::CHexEscape(name.substr(0, 80)), "'");
  return invalid_field(field, absl::StrCat(found, "; expected ", form));
}

absl::StatusOr<std::string> parse_folder_name(const std::string& name, const std::string& field,
                                              const std::string& collection) {
  const std::vector<std::string> parts = absl::StrSplit(name, '/');
  if (parts.size() != 2 || parts[0] != collection || !is_folder_id(parts[1])) {
    return refuse(name, field,
                  absl::StrCat(collection, "/NAME with NAME of 1 to ", kLongestFolderId,
                               " letters, digits, '.', '_' and '-', beginning with a letter or a "
                               "digit"));
  }
  return parts[1];
}

}  // namespace

bool is_canonical_uuid(const std::string& text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (i == 8 || i == 13 || i == 18 || i == 23) {
      if (c != '-') return false;
    } else if (!absl::ascii_isdigit(c) && (c < 'a' || c > 'f')) {
      return false;
    }
  }
  return true;
}

bool is_folder_id(const std::string& text) {
  if (text.empty() || text.size() > kLongestFolderId || !absl::ascii_isalnum(text[0])) return false;
  for (const char c : text) {
    if (!absl::ascii_isalnum(c) && c != '.' && c != '_' && c != '-') return false;
  }
  return true;
}

std::string job_name(const std::string& job_id) { return absl::StrCat("jobs/", job_id); }
std::string model_name(const std::string& folder) { return absl::StrCat("models/", folder); }
std::string dataset_name(const std::string& folder) { return absl::StrCat("datasets/", folder); }
std::string artifact_name(const std::string& job_id, const std::string& file) {
  return absl::StrCat("jobs/", job_id, "/artifacts/", file);
}

absl::StatusOr<std::string> parse_job_name(const std::string& name, const std::string& field) {
  const std::vector<std::string> parts = absl::StrSplit(name, '/');
  if (parts.size() != 2 || parts[0] != "jobs" || !is_canonical_uuid(parts[1])) {
    return refuse(name, field, "jobs/ID with ID the lower-case UUID that SubmitJob answered");
  }
  return parts[1];
}

absl::StatusOr<std::string> parse_model_name(const std::string& name, const std::string& field) {
  return parse_folder_name(name, field, "models");
}

absl::StatusOr<std::string> parse_dataset_name(const std::string& name, const std::string& field) {
  return parse_folder_name(name, field, "datasets");
}

absl::StatusOr<ArtifactName> parse_artifact_name(const std::string& name,
                                                 const std::string& field) {
  const std::vector<std::string> parts = absl::StrSplit(name, '/');
  if (parts.size() != 4 || parts[0] != "jobs" || !is_canonical_uuid(parts[1]) ||
      parts[2] != "artifacts" || !is_folder_id(parts[3])) {
    return refuse(name, field, "jobs/ID/artifacts/FILE as ListArtifacts answers it");
  }
  return ArtifactName{.job_id = parts[1], .file = parts[3]};
}

}  // namespace qaas
