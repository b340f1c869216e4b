#include "workers/agent/engine_log.h"

#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qaas {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

class EngineLogTest : public ::testing::Test {
 protected:
  EngineLog make(EngineLogOptions options) {
    return EngineLog(options, [this](const std::string& line) { lines_.push_back(line); });
  }
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::vector<std::string> lines_;
};

TEST_F(EngineLogTest, LinesMayComeInPieces) {
  EngineLog log = make({});
  for (const char* piece : {"fir", "st\nsec", "ond\r\n", "\n", "last"}) {
    log.feed(piece, start_);
  }
  log.finish();
  EXPECT_THAT(lines_, ElementsAre("first", "second", "last"));
  EXPECT_EQ(log.last_line(), "last");
}

TEST_F(EngineLogTest, LongLinesAreCutAndMarked) {
  EngineLog log = make({.max_line_bytes = 5});
  log.feed("12345\n123456\n123", start_);
  log.feed("4567\n", start_);
  EXPECT_THAT(lines_, ElementsAre("12345", "12345 [cut]", "12345 [cut]"));
}

TEST_F(EngineLogTest, AFloodIsCountedAndItsLastLineKept) {
  EngineLog log = make({.max_lines_per_second = 2});
  for (int i = 0; i < 1000; ++i) {
    log.feed("line " + std::to_string(i) + "\n", start_);
  }
  EXPECT_EQ(log.last_line(), "line 999");
  EXPECT_THAT(lines_, SizeIs(2));
  log.feed("after\n", start_ + std::chrono::seconds(1));
  EXPECT_THAT(lines_,
              ElementsAre("line 0", "line 1", "[998 lines of the engine left out]", "after"));
}

}  // namespace
}  // namespace qaas
