#include "storage/database/migrations.h"

#include <absl/strings/str_cat.h>

#include "storage/database/database.h"
#include "storage/database/statements.h"

namespace qaas {
namespace {

// 0 while the schema is empty.
int applied_version(pqxx::work& work) {
  if (run(work, kHasSchemaVersion).front()[0].is_null()) return 0;
  return run(work, kReadSchemaVersion).front()[0].as<int>();
}

absl::Status refuse_newer(int found) {
  return absl::FailedPreconditionError(
      absl::StrCat("the database has schema version ", found, ", this program works with version ",
                   schema_version(), ": install the newer release of this program"));
}

// Applies the first missing migration; `done` says that there was none.
absl::Status apply_next(pqxx::work& work, bool& done) {
  run(work, kLiftStatementTimeout);
  run(work, kLockSchema);
  const int found = applied_version(work);
  if (found > schema_version()) return refuse_newer(found);
  done = found == schema_version();
  if (done) return absl::OkStatus();
  if (found == 0) work.exec(kCreateSchemaVersion);
  const Migration& migration = migrations().at(found);
  work.exec(migration.sql);
  run(work, kRecordMigration, migration.number, migration.name);
  return absl::OkStatus();
}

}  // namespace

int schema_version() { return migrations().back().number; }

absl::Status migrate(Database& database) {
  bool done = false;
  while (!done) {
    const absl::Status status = database.transact_again_if_in_doubt(
        [&](pqxx::work& work) { return apply_next(work, done); });
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status check_schema(Database& database) {
  return database.transact([](pqxx::work& work) -> absl::Status {
    const int found = applied_version(work);
    if (found > schema_version()) return refuse_newer(found);
    if (found < schema_version()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the database has schema version ", found, ", this program works with version ",
          schema_version(), ": run 'qaas-server migrate'"));
    }
    return absl::OkStatus();
  });
}

}  // namespace qaas
