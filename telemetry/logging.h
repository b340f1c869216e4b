#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

#include <absl/status/status.h>

/// Log lines of all programs: one place for level, form and bounds. Text for people on a terminal,
/// one JSON object per line for machines; both on stderr, both escaped, so that text taken from a
/// request cannot forge a line.
namespace qaas {

/// Auto: text when stderr is a terminal, JSON otherwise.
enum class LogFormat { kAuto, kText, kJson };

enum class LogLevel { kDebug, kInfo, kWarning, kError };

struct LoggingOptions {
  /// Name in every JSON line: "qaas-server".
  std::string program;
  LogFormat format = LogFormat::kAuto;
  /// Lines below this level are dropped.
  LogLevel level = LogLevel::kInfo;
};

/// What a line is about. Empty or zero fields are left out.
struct LogFields {
  std::string job;         ///< job id
  int attempt = 0;         ///< attempt of the job
  std::string request_id;  ///< id of the call that caused the line
};

/// Longest message written, in bytes; the rest is cut off and the cut is marked.
inline constexpr size_t kMaxLogMessage = 4096;

/// "auto", "text" or "json"; kInvalidArgument names what is accepted.
absl::Status parse_log_format(const std::string& text, LogFormat& format);
/// "debug", "info", "warning" or "error"; kInvalidArgument names what is accepted.
absl::Status parse_log_level(const std::string& text, LogLevel& level);

/// Starts the logger: a bounded queue and one thread that writes to stderr. When stderr stalls and
/// the queue is full the oldest lines are dropped: a caller never blocks on its log. Call once, at
/// the start of main, before other threads; until then lines go to stderr as text, unqueued.
void start_logging(const LoggingOptions& options);

/// Writes what is queued and stops the thread. Call at the end of main; safe without a start. Lines
/// that other threads write from then on go to stderr as they did before the start.
void stop_logging();

/// Writes one line. Thread-safe; does not throw.
void log(LogLevel level, const std::string& message, const LogFields& fields = {});

inline void log_debug(const std::string& message, const LogFields& fields = {}) {
  log(LogLevel::kDebug, message, fields);
}
inline void log_info(const std::string& message, const LogFields& fields = {}) {
  log(LogLevel::kInfo, message, fields);
}
inline void log_warning(const std::string& message, const LogFields& fields = {}) {
  log(LogLevel::kWarning, message, fields);
}
inline void log_error(const std::string& message, const LogFields& fields = {}) {
  log(LogLevel::kError, message, fields);
}

/// The line for `message` as start_logging's thread writes it, without the line end: the whole
/// format, apart from the clock. `unix_milliseconds` is the time of the line.
std::string format_log_line(LogFormat format, const std::string& program, LogLevel level,
                            int64_t unix_milliseconds, const std::string& message,
                            const LogFields& fields);

/// Keeps a repeating line (a database that stays away) from filling the disk: lets one line pass
/// per interval and counts the others. Thread-safe.
class LogLimiter {
 public:
  explicit LogLimiter(std::chrono::milliseconds interval) : interval_(interval) {}

  /// Writes the line, with the number of lines held back since the last, or holds it back.
  void log(LogLevel level, const std::string& message, const LogFields& fields = {});

 private:
  std::chrono::milliseconds interval_;
  std::mutex mutex_;
  std::chrono::steady_clock::time_point next_{};
  int64_t held_back_ = 0;
};

}  // namespace qaas
