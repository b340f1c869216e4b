#pragma once

#include <string>
#include <string_view>

namespace qaas {

/// `text` from a user's file as it may stand in a message: its first 100 bytes, with everything but
/// printable ASCII as \xNN.
std::string printable(std::string_view text);

}  // namespace qaas
