#pragma once

#include <chrono>
#include <string>

#include <absl/status/statusor.h>

namespace qaas {

/// `dsn` (a libpq keyword string or URI) as a keyword string in which no call can block forever:
/// connect_timeout, TCP keepalives, tcp_user_timeout, statement_timeout and
/// idle_in_transaction_session_timeout are added where `dsn` does not set them; all that it sets,
/// `options` such as a search_path included, stays. kInvalidArgument if libpq cannot parse it; the
/// message does not repeat it, since it may hold a password.
absl::StatusOr<std::string> with_timeouts(const std::string& dsn,
                                          std::chrono::milliseconds statement_timeout);

/// `dsn` with the server setting `name` = `value` added to its `options`, before those it has, so
/// that its own come last and win.
absl::StatusOr<std::string> with_server_setting(const std::string& dsn, const std::string& name,
                                                const std::string& value);

}  // namespace qaas
