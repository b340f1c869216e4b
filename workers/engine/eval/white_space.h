#pragma once

#include <string_view>

namespace qaas {

/// Where the blanks at the end of a UTF-8 text begin, in bytes; its size where there are none.
/// Blanks are what Python's str.rstrip takes for them: Unicode's White_Space, and U+001C to U+001F.
size_t end_without_space(std::string_view text);

/// The text without the blanks at either end: Python's str.strip.
std::string_view without_outer_space(std::string_view text);

}  // namespace qaas
