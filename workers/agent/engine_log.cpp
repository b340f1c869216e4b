#include "workers/agent/engine_log.h"

#include <algorithm>
#include <utility>

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>

namespace qaas {

EngineLog::EngineLog(EngineLogOptions options, std::function<void(const std::string&)> write)
    : options_(options), write_(std::move(write)) {}

void EngineLog::feed(absl::string_view bytes, std::chrono::steady_clock::time_point now) {
  if (now - second_started_ >= std::chrono::seconds(1)) {
    second_started_ = now;
    lines_this_second_ = 0;
    report_held_back();
  }
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const absl::string_view part = bytes.substr(0, end);
    const size_t room = options_.max_line_bytes - std::min(options_.max_line_bytes, line_.size());
    line_.append(part.data(), std::min(part.size(), room));
    cut_ = cut_ || part.size() > room;
    if (end == absl::string_view::npos) {
      return;
    }
    end_line();
    bytes.remove_prefix(end + 1);
  }
}

void EngineLog::finish() {
  end_line();
  report_held_back();
}

void EngineLog::end_line() {
  absl::StripTrailingAsciiWhitespace(&line_);
  if (!line_.empty()) {
    if (cut_) {
      line_ += " [cut]";
    }
    if (lines_this_second_ < options_.max_lines_per_second) {
      ++lines_this_second_;
      write_(line_);
    } else {
      ++held_back_;
    }
    last_line_ = line_;
  }
  line_.clear();
  cut_ = false;
}

void EngineLog::report_held_back() {
  if (held_back_ > 0) {
    write_(absl::StrCat("[", std::exchange(held_back_, 0), " lines of the engine left out]"));
  }
}

}  // namespace qaas
