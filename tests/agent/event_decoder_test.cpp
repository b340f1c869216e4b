#include "workers/agent/event_decoder.h"

#include <sstream>
#include <vector>

#include <google/protobuf/util/delimited_message_util.h>

#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using ::qaas::testing::IsOk;
using ::qaas::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string warning_bytes(const std::string& message) {
  v1::EngineEvent event;
  event.mutable_warning()->set_message(message);
  std::ostringstream out;
  google::protobuf::util::SerializeDelimitedToOstream(event, &out);
  return out.str();
}

struct Collected {
  std::vector<std::string> messages;
  std::function<void(const v1::EngineEvent&)> sink() {
    return [this](const v1::EngineEvent& event) { messages.push_back(event.warning().message()); };
  }
};

TEST(EventDecoder, EventsMayComeInPiecesOfAnySize) {
  const std::string longer(300, 'x');  // its size takes two varint bytes
  const std::string bytes = warning_bytes("a") + warning_bytes(longer) + warning_bytes("");
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    EventDecoder decoder;
    Collected collected;
    for (size_t start = 0; start < bytes.size(); start += piece) {
      ASSERT_THAT(decoder.feed(bytes.substr(start, piece), collected.sink()), IsOk());
    }
    EXPECT_THAT(decoder.finish(), IsOk());
    ASSERT_THAT(collected.messages, ElementsAre("a", longer, "")) << "pieces of " << piece;
  }
}

TEST(EventDecoder, AnEndWithinAnEventIsDataLoss) {
  const std::string bytes = warning_bytes("hello");
  for (size_t size = 1; size < bytes.size(); ++size) {
    EventDecoder decoder;
    Collected collected;
    ASSERT_THAT(decoder.feed(bytes.substr(0, size), collected.sink()), IsOk());
    EXPECT_THAT(collected.messages, IsEmpty());
    EXPECT_THAT(decoder.finish(),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("ended within an event")));
  }
}

TEST(EventDecoder, BytesThatAreNoEventAreRefusedForGood) {
  EventDecoder decoder;
  Collected collected;
  EXPECT_THAT(decoder.feed("\x05garbage", collected.sink()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("5 bytes")));
  EXPECT_THAT(decoder.feed(warning_bytes("fine"), collected.sink()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("5 bytes")));
  EXPECT_THAT(collected.messages, IsEmpty());
  EXPECT_FALSE(decoder.finish().ok());
}

TEST(EventDecoder, AHugeSizeIsRefusedBeforeItsBytesCome) {
  for (const std::string& bytes : {std::string("\x81\x80\x40"),  // 2^20 + 1
                                   std::string(10, '\xff')}) {   // a varint without end
    EventDecoder decoder;
    Collected collected;
    EXPECT_THAT(decoder.feed(bytes, collected.sink()),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("more than 1048576")));
  }
}

}  // namespace
}  // namespace qaas
