#include "workers/engine/eval/white_space.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

namespace qaas {
namespace {

bool is_space(UChar32 c) { return u_isUWhiteSpace(c) || (c >= 0x1c && c <= 0x1f); }

}  // namespace

size_t end_without_space(std::string_view text) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  auto end = static_cast<int32_t>(text.size());
  while (end > 0) {
    int32_t before = end;
    UChar32 c = 0;
    U8_PREV(bytes, 0, before, c);
    if (c < 0 || !is_space(c)) break;
    end = before;
  }
  return static_cast<size_t>(end);
}

std::string_view without_outer_space(std::string_view text) {
  text = text.substr(0, end_without_space(text));
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  const auto size = static_cast<int32_t>(text.size());
  int32_t begin = 0;
  while (begin < size) {
    int32_t after = begin;
    UChar32 c = 0;
    U8_NEXT(bytes, after, size, c);
    if (c < 0 || !is_space(c)) break;
    begin = after;
  }
  return text.substr(static_cast<size_t>(begin));
}

}  // namespace qaas
