#include "storage/database/database.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <new>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>
#include <absl/strings/strip.h>

#include "storage/database/connection_string.h"

namespace qaas {
namespace {

constexpr int kConflictTries = 8;
constexpr int kInDoubtTries = 4;
// Marks a Status that transact answers by running the body again; it never leaves this file.
constexpr char kConflict[] = "qaas/transaction-conflict";

using Connection = std::unique_ptr<pqxx::connection>;

absl::Status from_sql_error(const pqxx::sql_error& error) {
  const absl::string_view state = error.sqlstate();
  const std::string text =
      absl::StrCat("database: ", absl::StripTrailingAsciiWhitespace(error.what()), " (SQLSTATE ",
                   state.empty() ? "unknown" : state, ")");
  // Connection lost, server shutting down, statement or lock timeout, read-only standby.
  if (absl::StartsWith(state, "08") || absl::StartsWith(state, "57") ||
      absl::StartsWith(state, "55") || absl::StartsWith(state, "58") || state == "25006" ||
      state == "25P03" || state.empty()) {
    return absl::UnavailableError(text);
  }
  if (absl::StartsWith(state, "53")) return absl::ResourceExhaustedError(text);
  // A value of the wrong form: a text with a NUL, a number out of range.
  if (absl::StartsWith(state, "22")) return absl::InvalidArgumentError(text);
  return absl::InternalError(text);
}

absl::StatusOr<Connection> connect(const std::string& dsn) {
  Connection connection;
  const absl::Status status = catch_database_errors([&] {
    connection = std::make_unique<pqxx::connection>(dsn);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
#if PQXX_VERSION_MAJOR < 7
    // libpqxx 6 marks this as deprecated only because 7 never reconnects by itself.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  connection->inhibit_reactivation(true);
#pragma GCC diagnostic pop
#endif
  return connection;
}

}  // namespace

absl::Status catch_database_errors(const std::function<absl::Status()>& body) {
  try {
    return body();
  } catch (const pqxx::in_doubt_error& error) {
    return absl::UnknownError(absl::StrCat("database: commit in doubt: ", error.what()));
  } catch (const pqxx::transaction_rollback& error) {
    absl::Status status = absl::UnavailableError(absl::StrCat("database: ", error.what()));
    status.SetPayload(kConflict, {});
    return status;
  } catch (const pqxx::broken_connection& error) {
    return absl::UnavailableError(
        absl::StrCat("database: ", absl::StripTrailingAsciiWhitespace(error.what())));
  } catch (const pqxx::sql_error& error) {
    return from_sql_error(error);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("database: out of memory");
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("database: ", error.what()));
  }
}

// Hands out connections, at most options.pool_size at a time. `open` counts those that are idle,
// lent or being opened.
struct Database::Pool {
  explicit Pool(DatabaseOptions given)
      : options(std::move(given)), dsn(with_timeouts(options.dsn, options.statement_timeout)) {
    if (options.pool_size < 1) {
      dsn = absl::InvalidArgumentError(
          absl::StrCat("database pool_size: ", options.pool_size, ", must be at least 1"));
    }
  }

  struct Loan {
    Connection connection;
    bool was_idle = false;
  };

  absl::StatusOr<Loan> acquire() {
    if (!dsn.ok()) return dsn.status();
    {
      std::unique_lock lock(mutex);
      const bool free = freed.wait_for(lock, options.acquire_timeout,
                                       [&] { return !idle.empty() || open < options.pool_size; });
      if (!free) {
        return absl::ResourceExhaustedError(absl::StrCat("database: none of ", options.pool_size,
                                                         " connections came free within ",
                                                         options.acquire_timeout.count(), " ms"));
      }
      if (!idle.empty()) {
        Loan loan{std::move(idle.back()), true};
        idle.pop_back();
        return loan;
      }
      ++open;
    }
    absl::StatusOr<Connection> connection = connect(*dsn);
    if (!connection.ok()) {
      discarded(1);
      return connection.status();
    }
    return Loan{std::move(connection).value(), false};
  }

  void give_back(Connection connection) {
    {
      const std::lock_guard lock(mutex);
      idle.push_back(std::move(connection));
    }
    freed.notify_one();
  }

  void discard(Connection connection) {
    connection.reset();
    discarded(1);
  }

  // A server that closed one idle connection has usually closed all of them.
  void discard_idle() {
    std::vector<Connection> dropped;
    {
      const std::lock_guard lock(mutex);
      dropped.swap(idle);
    }
    const int count = static_cast<int>(dropped.size());
    dropped.clear();
    discarded(count);
  }

  void discarded(int count) {
    {
      const std::lock_guard lock(mutex);
      open -= count;
    }
    freed.notify_all();
  }

  const DatabaseOptions options;
  absl::StatusOr<std::string> dsn;
  std::mutex mutex;
  std::condition_variable freed;
  std::vector<Connection> idle;
  int open = 0;
};

Database::Database(DatabaseOptions options) : pool_(std::make_unique<Pool>(std::move(options))) {}
Database::~Database() = default;

absl::Status Database::transact(const std::function<absl::Status(pqxx::work&)>& body) {
  int conflicts = 0;
  while (true) {
    absl::StatusOr<Pool::Loan> loan = pool_->acquire();
    if (!loan.ok()) return loan.status();

    bool begun = false;
    absl::Status answer;  // the body's own, as against the database's
    const absl::Status status = catch_database_errors([&] {
      pqxx::work work(*loan->connection);
      begun = true;
      answer = body(work);
      if (answer.ok()) {
        work.commit();
      } else {
        work.abort();
      }
      return absl::OkStatus();
    });
    if (status.ok()) {
      pool_->give_back(std::move(loan->connection));
      return answer;
    }

    // After any exception the connection goes: what state it is in need not be reasoned about.
    pool_->discard(std::move(loan->connection));
    if (!begun && loan->was_idle) {
      pool_->discard_idle();
      continue;
    }
    if (!status.GetPayload(kConflict).has_value()) return status;
    if (++conflicts == kConflictTries) {
      return absl::UnavailableError(status.message());
    }
    thread_local std::minstd_rand random{std::random_device{}()};
    std::this_thread::sleep_for(std::chrono::milliseconds(
        std::uniform_int_distribution<int>(1, 10 << std::min(conflicts, 4))(random)));
  }
}

absl::Status Database::transact_again_if_in_doubt(
    const std::function<absl::Status(pqxx::work&)>& body) {
  absl::Status status;
  for (int tries = 0; tries < kInDoubtTries; ++tries) {
    status = transact(body);
    if (status.code() != absl::StatusCode::kUnknown) break;
  }
  return status;
}

absl::StatusOr<Connection> Database::open_listener() const {
  if (!pool_->dsn.ok()) return pool_->dsn.status();
  return connect(*pool_->dsn);
}

}  // namespace qaas
