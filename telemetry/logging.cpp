#include "telemetry/logging.h"

#include <atomic>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <unistd.h>

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>
#include <nlohmann/json.hpp>
#include <spdlog/async.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace qaas {
namespace {

constexpr size_t kQueuedLines = 8192;

// What start_logging chose. Written before other threads exist, read by all; but for the logger,
// which stop_logging takes away while they may still write.
struct Running {
  std::string program;
  LogFormat format = LogFormat::kText;
  std::shared_ptr<spdlog::details::thread_pool> queue;
  std::mutex mutex;
  std::shared_ptr<spdlog::async_logger> logger;  // guarded by mutex
};

Running& running() {
  static Running instance;
  return instance;
}

std::atomic<LogLevel>& threshold() {
  static std::atomic<LogLevel> level{LogLevel::kInfo};
  return level;
}

const char* level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "info";
}

// Cuts at the bound, but never inside a UTF-8 sequence.
std::string bounded(const std::string& message) {
  if (message.size() <= kMaxLogMessage) return message;
  size_t end = kMaxLogMessage;
  while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xC0) == 0x80) --end;
  return absl::StrCat(message.substr(0, end), "... (", message.size() - end, " bytes cut)");
}

// Control characters would let a message forge a line or drive the terminal.
std::string without_control_characters(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      absl::StrAppend(&out, "\\x", absl::Hex(byte, absl::kZeroPad2));
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

absl::Status parse_log_format(const std::string& text, LogFormat& format) {
  if (text == "auto") {
    format = LogFormat::kAuto;
  } else if (text == "text") {
    format = LogFormat::kText;
  } else if (text == "json") {
    format = LogFormat::kJson;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("log format '", text, "': expected auto, text or json"));
  }
  return absl::OkStatus();
}

absl::Status parse_log_level(const std::string& text, LogLevel& level) {
  for (const LogLevel known :
       {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError}) {
    if (text == level_name(known)) {
      level = known;
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("log level '", text, "': expected debug, info, warning or error"));
}

std::string format_log_line(LogFormat format, const std::string& program, LogLevel level,
                            int64_t unix_milliseconds, const std::string& message,
                            const LogFields& fields) {
  const std::string time = absl::FormatTime(
      "%Y-%m-%dT%H:%M:%E3SZ", absl::FromUnixMillis(unix_milliseconds), absl::UTCTimeZone());
  if (format == LogFormat::kJson) {
    nlohmann::ordered_json line;
    line["time"] = time;
    line["level"] = level_name(level);
    line["program"] = program;
    line["message"] = bounded(message);
    if (!fields.job.empty()) line["job"] = bounded(fields.job);
    if (fields.attempt != 0) line["attempt"] = fields.attempt;
    if (!fields.request_id.empty()) line["request_id"] = bounded(fields.request_id);
    return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  }
  std::string line =
      absl::StrCat(time, " ", level_name(level), " ", without_control_characters(bounded(message)));
  if (!fields.job.empty()) {
    absl::StrAppend(&line, " job=", without_control_characters(bounded(fields.job)));
  }
  if (fields.attempt != 0) absl::StrAppend(&line, " attempt=", fields.attempt);
  if (!fields.request_id.empty()) {
    absl::StrAppend(&line, " request_id=", without_control_characters(bounded(fields.request_id)));
  }
  return line;
}

void start_logging(const LoggingOptions& options) {
  Running& state = running();
  state.program = options.program;
  state.format = options.format;
  if (state.format == LogFormat::kAuto) {
    state.format = isatty(STDERR_FILENO) == 1 ? LogFormat::kText : LogFormat::kJson;
  }
  threshold() = options.level;
  state.queue = std::make_shared<spdlog::details::thread_pool>(kQueuedLines, 1);
  state.logger = std::make_shared<spdlog::async_logger>(
      options.program, std::make_shared<spdlog::sinks::stderr_sink_mt>(), state.queue,
      spdlog::async_overflow_policy::overrun_oldest);
  state.logger->set_pattern("%v");
  state.logger->set_level(spdlog::level::trace);
}

void stop_logging() {
  Running& state = running();
  {
    const std::lock_guard lock(state.mutex);
    state.logger.reset();
  }
  state.queue.reset();  // joins the thread once the queue is written
}

void log(LogLevel level, const std::string& message, const LogFields& fields) {
  if (level < threshold()) return;
  Running& state = running();
  const std::string line = format_log_line(state.format, state.program, level,
                                           absl::ToUnixMillis(absl::Now()), message, fields);
  std::shared_ptr<spdlog::async_logger> logger;
  {
    const std::lock_guard lock(state.mutex);
    logger = state.logger;
  }
  if (logger) {
    logger->log(spdlog::level::info, spdlog::string_view_t(line.data(), line.size()));
  } else {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
}

void LogLimiter::log(LogLevel level, const std::string& message, const LogFields& fields) {
  int64_t held_back = 0;
  {
    const std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) {
      ++held_back_;
      return;
    }
    next_ = now + interval_;
    held_back = held_back_;
    held_back_ = 0;
  }
  if (held_back == 0) {
    qaas::log(level, message, fields);
  } else {
    qaas::log(level, absl::StrCat(message, " (", held_back, " like it held back)"), fields);
  }
}

}  // namespace qaas
