#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "qaas/v1/model.pb.h"
#include "storage/database/database.h"

namespace qaas {

/// What a scan of a model or dataset folder found, as remembered between restarts. `fingerprint`
/// covers names, sizes and modification times: while it is unchanged the digest still holds.
struct FolderRecord {
  std::string kind;  ///< "model" or "dataset"
  std::string name;
  std::string fingerprint;
  std::string sha256;  ///< empty while unknown
  v1::Model model;     ///< kind "model" only
};

/// Rows about folders under the configured roots. Thread-safe.
class FolderStore {
 public:
  explicit FolderStore(Database& database) : database_(database) {}
  absl::StatusOr<std::vector<FolderRecord>> list(const std::string& kind);
  absl::Status put(const FolderRecord& record);
  absl::Status remove(const std::string& kind, const std::string& name);

 private:
  Database& database_;
};

}  // namespace qaas
