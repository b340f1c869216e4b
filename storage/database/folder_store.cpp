#include "storage/database/folder_store.h"

#include <utility>

#include "storage/database/job_row.h"
#include "storage/database/statements.h"

namespace qaas {

absl::StatusOr<std::vector<FolderRecord>> FolderStore::list(const std::string& kind) {
  std::vector<FolderRecord> records;
  const absl::Status status = database_.transact([&](pqxx::work& work) -> absl::Status {
    records.clear();
    for (const pqxx::row& row : run(work, kListFolders, kind)) {
      FolderRecord record;
      record.kind = kind;
      record.name = row["name"].c_str();
      record.fingerprint = row["fingerprint"].c_str();
      record.sha256 = row["sha256"].c_str();
      const absl::Status parsed = from_json(row["model"].c_str(), "model", record.model);
      if (!parsed.ok()) return parsed;
      records.push_back(std::move(record));
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return records;
}

absl::Status FolderStore::put(const FolderRecord& record) {
  const absl::StatusOr<std::string> model = to_json(record.model);
  if (!model.ok()) return model.status();
  return database_.transact_again_if_in_doubt([&](pqxx::work& work) {
    run(work, kPutFolder, record.kind, record.name, record.fingerprint, record.sha256, *model);
    return absl::OkStatus();
  });
}

absl::Status FolderStore::remove(const std::string& kind, const std::string& name) {
  return database_.transact_again_if_in_doubt([&](pqxx::work& work) {
    run(work, kRemoveFolder, kind, name);
    return absl::OkStatus();
  });
}

}  // namespace qaas
