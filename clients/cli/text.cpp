#include "clients/cli/text.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <utility>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

namespace qaas::cli {
namespace {

bool is_continuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

/// Bytes of the well-formed UTF-8 character at `position`, or 0. Surrogates, overlong forms and
/// numbers above U+10FFFF are not well-formed.
size_t character_length(const std::string& text, size_t position) {
  const auto byte = [&](size_t offset) -> unsigned char {
    return position + offset < text.size() ? text[position + offset] : 0;
  };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return is_continuation(byte(1)) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const unsigned char low = first == 0xE0 ? 0xA0 : 0x80;
    const unsigned char high = first == 0xED ? 0x9F : 0xBF;
    return byte(1) >= low && byte(1) <= high && is_continuation(byte(2)) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const unsigned char low = first == 0xF0 ? 0x90 : 0x80;
    const unsigned char high = first == 0xF4 ? 0x8F : 0xBF;
    const bool good =
        byte(1) >= low && byte(1) <= high && is_continuation(byte(2)) && is_continuation(byte(3));
    return good ? 4 : 0;
  }
  return 0;
}

/// Control characters, and the marks that reorder or separate what stands around them.
bool is_control(const std::string& text, size_t position, size_t length) {
  const auto byte = [&](size_t offset) {
    return static_cast<unsigned char>(text[position + offset]);
  };
  if (length == 1) return byte(0) < 0x20 || byte(0) == 0x7F;
  if (length == 2) return byte(0) == 0xC2 && byte(1) < 0xA0;  // U+0080 to U+009F
  if (length == 3 && byte(0) == 0xE2 && byte(1) == 0x80) {
    // U+200E, U+200F, U+2028 to U+202E
    return byte(2) == 0x8E || byte(2) == 0x8F || (byte(2) >= 0xA8 && byte(2) <= 0xAE);
  }
  // U+2066 to U+2069
  return length == 3 && byte(0) == 0xE2 && byte(1) == 0x81 && byte(2) >= 0xA6 && byte(2) <= 0xA9;
}

/// Characters, taking each as one column.
size_t column_count(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return !is_continuation(c); });
}

std::string in_units(double value, double step, const std::array<const char*, 5>& units) {
  size_t unit = 0;
  while (unit + 1 < units.size() && value >= step - 0.05 * step / 1000) {
    value /= step;
    ++unit;
  }
  return unit == 0 ? absl::StrFormat("%.0f%s", value, units[0])
                   : absl::StrFormat("%.1f%s", value, units[unit]);
}

}  // namespace

std::string printable(const std::string& text) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t length = character_length(text, i);
    if (length > 0 && !is_control(text, i, length)) {
      result.append(text, i, length);
    } else {
      for (size_t j = i; j < i + std::max<size_t>(length, 1); ++j) {
        absl::StrAppendFormat(&result, "\\x%02x", static_cast<unsigned char>(text[j]));
      }
    }
    i += std::max<size_t>(length, 1);
  }
  return result;
}

std::string format_bytes(int64_t bytes) {
  return in_units(static_cast<double>(std::max<int64_t>(bytes, 0)), 1000,
                  {" B", " kB", " MB", " GB", " TB"});
}

std::string format_count(double count) {
  if (!std::isfinite(count) || count < 0) return "-";
  return in_units(count, 1000, {"", "k", "M", "B", "T"});
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e12) return "-";
  if (seconds < 9.95) return absl::StrFormat("%.1f s", seconds);
  const int64_t whole = std::llround(seconds);
  constexpr int64_t kMinute = 60;
  constexpr int64_t kHour = 60 * kMinute;
  constexpr int64_t kDay = 24 * kHour;
  if (whole < kMinute) return absl::StrFormat("%d s", whole);
  if (whole < kHour) return absl::StrFormat("%dm %02ds", whole / kMinute, whole % kMinute);
  if (whole < kDay) return absl::StrFormat("%dh %02dm", whole / kHour, whole % kHour / kMinute);
  return absl::StrFormat("%dd %02dh", whole / kDay, whole % kDay / kHour);
}

std::string format_number(double value, int digits) {
  if (!std::isfinite(value)) return "-";
  const std::string shortest = absl::StrFormat("%.*g", digits, value);
  // "%g" turns to exponents at the number of digits; figures such as 12345 read better whole.
  const double size = std::abs(value);
  if (size >= std::pow(10, digits) && size < 1e7) return absl::StrFormat("%.0f", value);
  return shortest;
}

std::string format_signed(double value, int digits) {
  const std::string text = format_number(value, digits);
  return value > 0 && std::isfinite(value) ? "+" + text : text;
}

std::string progress_bar(double fraction, int width) {
  const double share = std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) : 0.0;
  const int full = static_cast<int>(share * width);
  return absl::StrCat("[", std::string(full, '#'), std::string(width - full, '-'), "]");
}

std::string fit(const std::string& text, int columns) {
  const size_t most = static_cast<size_t>(std::max(columns, 0));
  if (column_count(text) <= most) return text;
  const size_t kept = most > 3 ? most - 3 : 0;
  size_t end = 0;
  for (size_t count = 0; end < text.size(); ++end) {
    if (!is_continuation(text[end]) && count++ == kept) break;
  }
  return text.substr(0, end) + std::string(std::min<size_t>(most, 3), '.');
}

Table::Table(std::vector<std::string> header, Align align) : align_(align) {
  rows_.push_back(std::move(header));
}

void Table::add_row(std::vector<std::string> cells) {
  assert(cells.size() <= rows_[0].size());
  cells.resize(rows_[0].size());
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  std::vector<size_t> widths(rows_[0].size(), 0);
  for (const std::vector<std::string>& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], column_count(row[i]));
  }
  std::string result;
  for (const std::vector<std::string>& row : rows_) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string blanks(widths[i] - column_count(row[i]), ' ');
      if (i > 0) line += "  ";
      line += i > 0 && align_ == Align::kRight ? blanks + row[i] : row[i] + blanks;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    result += line + "\n";
  }
  return result;
}

}  // namespace qaas::cli
