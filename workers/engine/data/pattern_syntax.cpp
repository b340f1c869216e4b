#include <algorithm>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include "storage/checkpoint/message_text.h"
#include "workers/engine/data/split_regex.h"

// Oniguruma (which the tokenizers library uses) and PCRE2 agree on most of what tokenizers write,
// and differ silently on the rest: ^ and $ match at every line, \h is a hexadecimal digit, && in a
// class is an intersection, x{1,3}+ repeats, \w and script names cover other characters. So only
// constructs known to agree pass. \s is spelled out: PCRE2's includes U+180E, which is no white
// space since Unicode 6.3.

namespace qaas {
namespace {

constexpr char kWhiteSpace[] = "\\x{9}-\\x{d}\\x{85}\\p{Z}";

class Translation {
 public:
  explicit Translation(std::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> run() {
    while (at_ < pattern_.size() && status_.ok()) step();
    if (status_.ok() && in_class_) refuse("an unfinished class");
    if (!status_.ok()) return status_;
    return std::move(result_);
  }

 private:
  void step() {
    const char c = pattern_[at_];
    if (c == '\\') return escape();
    if (in_class_) return class_character(c);
    switch (c) {
      case '[':
        open_class();
        return;
      case '(':
        return group();
      case '{':
        return counted_repeat();
      case '^':
      case '$':
        return refuse("an anchor (^ or $)");
      default:
        copy(1);
    }
  }

  void open_class() {
    in_class_ = true;
    copy(1);
    if (peek() == '^') copy(1);
    if (peek() == ']') refuse("']' as the first character of a class");
  }

  void class_character(char c) {
    if (c == ']') in_class_ = false;
    if (c == '[') return refuse("a class inside a class");
    if (c == '&' && pattern_.substr(at_, 2) == "&&") return refuse("an intersection of classes");
    copy(1);
  }

  void group() {
    for (const char* opening : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
      const std::string_view text = opening;
      if (pattern_.substr(at_, text.size()) == text) return copy(text.size());
    }
    if (pattern_.substr(at_, 2) == "(?" || pattern_.substr(at_, 2) == "(*") {
      return refuse("a group other than (...), (?:...), (?i:...), a look-around or (?>...)");
    }
    copy(1);
  }

  /// {2}, {2,} or {2,5}.
  void counted_repeat() {
    const size_t end = pattern_.find('}', at_);
    const bool counts = end != std::string_view::npos && end > at_ + 1 &&
                        is_digit(pattern_[at_ + 1]) &&
                        std::all_of(pattern_.begin() + at_ + 1, pattern_.begin() + end,
                                    [](char c) { return is_digit(c) || c == ','; });
    if (!counts) return refuse("a '{' that does not begin {n}, {n,} or {n,m}");
    copy(end + 1 - at_);
    if (peek() == '+') refuse("a '+' after a counted repeat");
  }

  void escape() {
    const char kind = at_ + 1 < pattern_.size() ? pattern_[at_ + 1] : '\0';
    if (kind == 's')
      return white_space(in_class_ ? kWhiteSpace : absl::StrCat("[", kWhiteSpace, "]"));
    if (kind == 'S' && !in_class_) return white_space(absl::StrCat("[^", kWhiteSpace, "]"));
    if (kind == 'p' || kind == 'P') return property();
    const bool control = kind == 'r' || kind == 'n' || kind == 't' || kind == 'd';
    const bool punctuation = kind > 0x20 && kind < 0x7F && !is_letter(kind) && !is_digit(kind);
    if (!control && !punctuation) {
      return refuse(absl::StrCat("the escape '\\", printable(pattern_.substr(at_ + 1, 1)), "'",
                                 in_class_ ? " in a class" : ""));
    }
    copy(2);
  }

  /// \p{L}, \p{Lu}: general categories only.
  void property() {
    const size_t end = pattern_.find('}', at_);
    const std::string_view name =
        end == std::string_view::npos || pattern_.substr(at_ + 2, 1) != "{"
            ? std::string_view()
            : pattern_.substr(at_ + 3, end - at_ - 3);
    const bool category = (name.size() == 1 || (name.size() == 2 && is_letter(name[1]))) &&
                          std::string_view("LMNPSZC").find(name[0]) != std::string_view::npos;
    if (!category) {
      return refuse(absl::StrCat("the property '", printable(pattern_.substr(at_, 20)),
                                 "' (general categories such as \\p{L} or \\p{Lu} are accepted)"));
    }
    copy(end + 1 - at_);
  }

  void white_space(const std::string& spelled) {
    result_ += spelled;
    at_ += 2;
  }

  void copy(size_t count) {
    result_ += pattern_.substr(at_, count);
    at_ += count;
  }

  char peek() const { return at_ < pattern_.size() ? pattern_[at_] : '\0'; }
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

  void refuse(const std::string& what) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat("regular expression, byte ", at_, ": ", what, " is not supported"));
  }

  std::string_view pattern_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string result_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::string> to_pcre2(std::string_view pattern) {
  return Translation(pattern).run();
}

}  // namespace qaas
