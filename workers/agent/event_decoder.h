#pragma once

#include <functional>
#include <string>

#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include "qaas/v1/event.pb.h"

namespace qaas {

/// Longest event accepted; the longest one the engine writes is some kilobytes.
inline constexpr size_t kMaxEventBytes = 1 << 20;

/// Takes the bytes of the engine's event pipe apart: each event is its size as a varint, then the
/// message. Not thread-safe.
class EventDecoder {
 public:
  /// Takes the next bytes and calls `sink` for each event they complete. kDataLoss, now and from
  /// then on, when the bytes are no event or one of more than kMaxEventBytes; memory stays bounded
  /// by it.
  absl::Status feed(absl::string_view bytes,
                    const std::function<void(const v1::EngineEvent&)>& sink);

  /// At the end of the pipe: kDataLoss if it ended within an event.
  absl::Status finish() const;

 private:
  std::string pending_;
  absl::Status broken_;
};

}  // namespace qaas
