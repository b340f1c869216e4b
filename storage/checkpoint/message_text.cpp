#include "storage/checkpoint/message_text.h"

#include <algorithm>

#include <absl/strings/escaping.h>

namespace qaas {

std::string printable(std::string_view text) {
  return absl::CHexEscape(absl::string_view(text.data(), std::min<size_t>(text.size(), 100)));
}

}  // namespace qaas
