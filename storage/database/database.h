#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include <absl/status/status.h>

#include <pqxx/pqxx>

namespace qaas {

/// Settings of the connection pool. All are checked by Database::create.
struct DatabaseOptions {
  /// libpq connection string or URI. Never logged: it may hold a password.
  std::string dsn;
  /// Connections at most; a caller waits for a free one up to `acquire_timeout`.
  int pool_size = 8;
  std::chrono::milliseconds acquire_timeout{5000};
  /// Server-side limit on one statement (statement_timeout), put into the DSN.
  std::chrono::milliseconds statement_timeout{15000};
};

/// A bounded pool of PostgreSQL connections. Thread-safe. Broken connections are discarded, never
/// reused (libpqxx 6 would silently reconnect without our settings).
class Database {
 public:
  explicit Database(DatabaseOptions options);
  ~Database();

  /// Runs `body` in one transaction and commits if it returns OK. Deadlocks and serialization
  /// failures are retried, so `body` may run more than once and must touch nothing outside the
  /// transaction. Other database errors come back as a Status: kUnavailable when the server cannot
  /// be reached, kResourceExhausted when no connection came free, kUnknown for an in-doubt commit,
  /// kInternal for anything that is our mistake.
  absl::Status transact(const std::function<absl::Status(pqxx::work&)>& body);

  /// Opens a connection of its own, outside the pool, for LISTEN. Throws what libpqxx throws.
  std::unique_ptr<pqxx::connection> open_listener() const;

 private:
  struct Pool;
  std::unique_ptr<Pool> pool_;
};

/// Schema version this build works with: the number of the last file in storage/database/migrations.
int schema_version();

/// Applies the migrations the database lacks, in order, each in a transaction, all under one
/// advisory lock. Returns kFailedPrecondition if the database is newer than this build.
absl::Status migrate(Database& database);

/// OK if the database is exactly at schema_version(); else kFailedPrecondition that says which
/// version was found and what to run.
absl::Status check_schema(Database& database);

}  // namespace qaas
