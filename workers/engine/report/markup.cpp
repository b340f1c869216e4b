#include "workers/engine/report/markup.h"

#include <cmath>
#include <cstdlib>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

namespace qaas::report {
namespace {

constexpr char kNone[] = "–";
constexpr char kMinus[] = "−";

}  // namespace

std::string escaped(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        if ((c >= 0 && c < ' ' && c != '\n' && c != '\t') || c == '\x7f') {
          result += "\uFFFD";
        } else {
          result += c;
        }
    }
  }
  return result;
}

std::string number(double value, int digits) {
  if (!std::isfinite(value)) return kNone;
  if (value == 0) return "0";
  // Rounded first: 0.99996 with four digits is 1.000.
  const std::string scientific = absl::StrFormat("%.*e", digits - 1, std::fabs(value));
  const int magnitude = std::atoi(scientific.c_str() + scientific.find('e') + 1);
  const std::string text =
      magnitude < -4 || magnitude >= 7
          ? scientific
          : absl::StrFormat("%.*f", std::max(0, digits - 1 - magnitude), std::fabs(value));
  return value < 0 ? absl::StrCat(kMinus, text) : text;
}

std::string signed_number(double value, int digits) {
  const std::string text = number(value, digits);
  return std::isfinite(value) && value > 0 ? absl::StrCat("+", text) : text;
}

std::string percent(double share, int decimals) {
  if (!std::isfinite(share)) return kNone;
  const std::string text = absl::StrFormat("%.*f %%", decimals, 100 * std::fabs(share));
  return share < 0 ? absl::StrCat(kMinus, text) : text;
}

std::string byte_count(int64_t bytes) {
  constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  auto value = static_cast<double>(bytes);
  int unit = 0;
  while (std::fabs(value) >= 999.5 && unit < 6) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? absl::StrCat(bytes, " B") : absl::StrCat(number(value, 3), " ", kUnits[unit]);
}

std::string duration(double seconds) {
  if (!(seconds >= 0 && seconds < 1e12)) return kNone;
  if (seconds < 1) return absl::StrFormat("%.0f ms", seconds * 1000);
  if (seconds < 60) return absl::StrFormat("%.1f s", seconds);
  const auto rounded = static_cast<int64_t>(std::llround(seconds));
  if (rounded < 3600) return absl::StrFormat("%d min %d s", rounded / 60, rounded % 60);
  return absl::StrFormat("%d h %d min", rounded / 3600, rounded % 3600 / 60);
}

std::string whole(int64_t value) {
  const std::string digits = std::to_string(std::abs(value));
  std::string text = value < 0 ? kMinus : "";
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string rounded(double value) {
  return std::fabs(value) < 9e18 ? whole(std::llround(value)) : kNone;
}

}  // namespace qaas::report
