#include "workers/agent/event_decoder.h"

#include <cstdint>

#include <absl/strings/str_cat.h>

namespace qaas {
namespace {

constexpr size_t kMaxVarintBytes = 10;

}  // namespace

absl::Status EventDecoder::feed(absl::string_view bytes,
                                const std::function<void(const v1::EngineEvent&)>& sink) {
  if (!broken_.ok()) {
    return broken_;
  }
  pending_.append(bytes.data(), bytes.size());
  size_t start = 0;
  while (start < pending_.size()) {
    uint64_t size = 0;
    size_t digits = 0;
    bool complete = false;
    while (!complete && start + digits < pending_.size() && digits < kMaxVarintBytes) {
      const auto byte = static_cast<uint8_t>(pending_[start + digits]);
      size |= static_cast<uint64_t>(byte & 0x7f) << (7 * digits);
      ++digits;
      complete = (byte & 0x80) == 0;
    }
    if (digits == kMaxVarintBytes || size > kMaxEventBytes) {
      broken_ = absl::DataLossError(absl::StrCat("an event of more than ", kMaxEventBytes,
                                                 " bytes is announced on the event pipe"));
      return broken_;
    }
    if (!complete || pending_.size() - start - digits < size) {
      break;
    }
    v1::EngineEvent event;
    if (!event.ParseFromArray(pending_.data() + start + digits, static_cast<int>(size))) {
      broken_ = absl::DataLossError(
          absl::StrCat("a message of ", size, " bytes on the event pipe is no event"));
      return broken_;
    }
    sink(event);
    start += digits + size;
  }
  pending_.erase(0, start);
  return absl::OkStatus();
}

absl::Status EventDecoder::finish() const {
  if (!broken_.ok()) {
    return broken_;
  }
  if (!pending_.empty()) {
    return absl::DataLossError(
        absl::StrCat("the event pipe ended within an event, ", pending_.size(), " bytes into it"));
  }
  return absl::OkStatus();
}

}  // namespace qaas
