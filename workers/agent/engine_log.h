#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include <absl/strings/string_view.h>

namespace qaas {

/// Bounds on what an engine can put into its worker's log.
struct EngineLogOptions {
  /// Longer lines are cut off and the cut is marked.
  size_t max_line_bytes = 2000;
  /// Lines passed on in any one second; the others are counted.
  int max_lines_per_second = 50;
};

/// Turns the bytes of an engine's stderr into log lines. Not thread-safe.
class EngineLog {
 public:
  /// `write` gets each line that passes, without its end.
  EngineLog(EngineLogOptions options, std::function<void(const std::string&)> write);

  /// Takes the next bytes, read at `now`.
  void feed(absl::string_view bytes, std::chrono::steady_clock::time_point now);
  /// At the end: passes on an unfinished last line and the count of lines held back.
  void finish();

  /// The last line that was not blank, passed on or not; empty if there was none.
  const std::string& last_line() const { return last_line_; }

 private:
  void end_line();
  void report_held_back();

  EngineLogOptions options_;
  std::function<void(const std::string&)> write_;
  std::string line_;
  bool cut_ = false;
  std::string last_line_;
  std::chrono::steady_clock::time_point second_started_{};
  int lines_this_second_ = 0;
  int64_t held_back_ = 0;
};

}  // namespace qaas
