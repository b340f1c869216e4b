#define PCRE2_CODE_UNIT_WIDTH 8
#include "workers/engine/data/split_regex.h"

#include <pcre2.h>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include "storage/checkpoint/message_text.h"

namespace qaas {
namespace {

std::string message_of(int error) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct SplitRegex::Code {
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
    void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
  };
  std::unique_ptr<pcre2_code, Free> compiled;
};

absl::StatusOr<SplitRegex> SplitRegex::compile(std::string_view pattern) {
  const auto translated = to_pcre2(pattern);
  if (!translated.ok()) return translated.status();
  return compile(*translated, PCRE2_UCP);
}

absl::StatusOr<SplitRegex> SplitRegex::compile_literal(std::string_view literal) {
  return compile(literal, PCRE2_LITERAL);
}

absl::StatusOr<SplitRegex> SplitRegex::compile(std::string_view pattern, uint32_t options) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  code->compiled.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                     PCRE2_UTF | options, &error, &offset, nullptr));
  if (!code->compiled) {
    return absl::InvalidArgumentError(absl::StrCat("regular expression '", printable(pattern),
                                                   "', byte ", offset, ": ", message_of(error)));
  }
  uint32_t matches_empty = 0;
  pcre2_pattern_info(code->compiled.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("regular expression '", printable(pattern), "' can match the empty text"));
  }
  // Only a matter of speed: without just-in-time code pcre2_match interprets.
  pcre2_jit_compile(code->compiled.get(), PCRE2_JIT_COMPLETE);
  SplitRegex regex;
  regex.code_ = std::move(code);
  return regex;
}

absl::Status SplitRegex::split(std::string_view text, std::vector<std::string_view>& pieces) const {
  const pcre2_code* code = code_->compiled.get();
  const std::unique_ptr<pcre2_match_data, Code::Free> match(
      pcre2_match_data_create_from_pattern(code, nullptr));
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t position = 0;
  while (position < text.size()) {
    int result =
        pcre2_match(code, subject, text.size(), position, PCRE2_NO_UTF_CHECK, match.get(), nullptr);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter keeps its stack on the heap
      result = pcre2_match(code, subject, text.size(), position, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                           match.get(), nullptr);
    }
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("splitting the text at byte ", position, ": ", message_of(result)));
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match.get());
    if (bounds[0] > position) pieces.push_back(text.substr(position, bounds[0] - position));
    pieces.push_back(text.substr(bounds[0], bounds[1] - bounds[0]));
    position = bounds[1];
  }
  if (position < text.size()) pieces.push_back(text.substr(position));
  return absl::OkStatus();
}

}  // namespace qaas
