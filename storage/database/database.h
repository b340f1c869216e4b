#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <pqxx/pqxx>

/// PostgreSQL: connections and transactions (database), schema (migrations/*.sql, compiled in), and
/// every SQL statement (statements.h), used by the stores. The only place that knows libpqxx's
/// exceptions is database.cpp; everything above sees absl::Status.
namespace qaas {

/// Settings of the connection pool.
struct DatabaseOptions {
  /// libpq connection string or URI. Never logged: it may hold a password. Timeouts and keepalives
  /// it does not set are added (see with_timeouts).
  std::string dsn;
  /// Connections at most; a caller waits for a free one up to `acquire_timeout`.
  int pool_size = 8;
  std::chrono::milliseconds acquire_timeout{5000};
  /// Server-side limit on one statement, and on idling inside a transaction.
  std::chrono::milliseconds statement_timeout{15000};
};

/// A bounded pool of PostgreSQL connections. Thread-safe. Broken connections are discarded, never
/// reused (libpqxx 6 would silently reconnect without our settings).
class Database {
 public:
  /// Connects to nothing yet. Options that cannot work (a malformed dsn, pool_size < 1) show as
  /// kInvalidArgument from the first transaction.
  explicit Database(DatabaseOptions options);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  /// Runs `body` in one transaction and commits if it returns OK; else rolls back and returns what
  /// it returned. Deadlocks and serialization failures are retried, so `body` may run more than
  /// once and must touch nothing outside the transaction. Other database errors come back as a
  /// Status: kUnavailable when the server cannot be reached or a time limit passed,
  /// kResourceExhausted when no connection came free or the server is out of disk or memory,
  /// kUnknown for an in-doubt commit, kInvalidArgument for a value PostgreSQL cannot store,
  /// kInternal for anything that is our mistake.
  absl::Status transact(const std::function<absl::Status(pqxx::work&)>& body);

  /// Like transact, for a body that finds out by itself whether it has already been committed: an
  /// in-doubt commit is answered by running it again, so kUnknown comes back only after several.
  absl::Status transact_again_if_in_doubt(const std::function<absl::Status(pqxx::work&)>& body);

  /// Opens a connection of its own, outside the pool, for LISTEN (see listener.h).
  absl::StatusOr<std::unique_ptr<pqxx::connection>> open_listener() const;

 private:
  struct Pool;
  std::unique_ptr<Pool> pool_;
};

/// Runs `body` and turns whatever libpqxx throws into a Status, as Database::transact describes.
absl::Status catch_database_errors(const std::function<absl::Status()>& body);

/// Schema version this build works with: the number of the last file in
/// storage/database/migrations.
int schema_version();

/// Applies the migrations the database lacks, in order, each in a transaction that first takes one
/// advisory lock, so that processes may migrate at the same time. Returns kFailedPrecondition if
/// the database is newer than this build.
absl::Status migrate(Database& database);

/// OK if the database is exactly at schema_version(); else kFailedPrecondition that says which
/// version was found and what to run.
absl::Status check_schema(Database& database);

}  // namespace qaas
