#include "telemetry/logging.h"

#include <atomic>
#include <string>
#include <thread>

#include <nlohmann/json.hpp>

#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using ::qaas::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int64_t kNoon = 1750000000123;  // 2025-06-15T15:06:40.123Z

TEST(Logging, JsonLineHoldsEveryField) {
  const auto line = nlohmann::json::parse(
      format_log_line(LogFormat::kJson, "qaas-server", LogLevel::kWarning, kNoon, "lease lost",
                      {.job = "J", .attempt = 3, .request_id = "R"}));
  EXPECT_EQ(line, (nlohmann::json{{"time", "2025-06-15T15:06:40.123Z"},
                                  {"level", "warning"},
                                  {"program", "qaas-server"},
                                  {"message", "lease lost"},
                                  {"job", "J"},
                                  {"attempt", 3},
                                  {"request_id", "R"}}));
}

TEST(Logging, TextLineLeavesEmptyFieldsOut) {
  EXPECT_EQ(format_log_line(LogFormat::kText, "p", LogLevel::kInfo, kNoon, "ready", {}),
            "2025-06-15T15:06:40.123Z info ready");
  EXPECT_EQ(format_log_line(LogFormat::kText, "p", LogLevel::kInfo, kNoon, "ready",
                            {.job = "J", .attempt = 1, .request_id = "R"}),
            "2025-06-15T15:06:40.123Z info ready job=J attempt=1 request_id=R");
}

TEST(Logging, MessageCannotForgeALineOrDriveTheTerminal) {
  const std::string hostile = "name 'a\nforged\x1b[2J'";
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    const std::string line = format_log_line(format, "p", LogLevel::kInfo, kNoon, hostile, {});
    EXPECT_EQ(line.find('\n'), std::string::npos) << line;
    EXPECT_EQ(line.find('\x1b'), std::string::npos) << line;
  }
}

TEST(Logging, InvalidUtf8StaysOneJsonObject) {
  const auto line = nlohmann::json::parse(
      format_log_line(LogFormat::kJson, "p", LogLevel::kInfo, kNoon, "bad \xff byte", {}));
  EXPECT_THAT(line["message"].get<std::string>(), HasSubstr("bad "));
}

TEST(Logging, LongMessageIsCutOutsideACharacter) {
  // The bound falls on the second byte of a two-byte character.
  const std::string message = std::string(kMaxLogMessage - 1, 'a') + "\xc3\xa9" + "tail";
  const auto line = nlohmann::json::parse(
      format_log_line(LogFormat::kJson, "p", LogLevel::kInfo, kNoon, message, {}));
  EXPECT_EQ(line["message"].get<std::string>(),
            std::string(kMaxLogMessage - 1, 'a') + "... (6 bytes cut)");
}

TEST(Logging, QueuedLinesReachStderrBeforeStopReturns) {
  ::testing::internal::CaptureStderr();
  start_logging({.program = "p", .format = LogFormat::kJson, .level = LogLevel::kWarning});
  log_info("below the level");
  for (int i = 0; i < 1000; ++i) log_error("line");
  stop_logging();
  const std::string written = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(written.begin(), written.end(), '\n'), 1000);
  EXPECT_THAT(written, ::testing::Not(HasSubstr("below")));
}

TEST(Logging, OtherThreadsMayWriteWhileLoggingStops) {
  ::testing::internal::CaptureStderr();
  start_logging({.program = "p", .format = LogFormat::kJson});
  std::atomic<bool> started = false;
  std::atomic<bool> stopped = false;
  std::thread writer([&] {
    while (!stopped) {
      log_error("busy");
      started = true;
      started.notify_one();
    }
    log_error("after the stop");
  });
  started.wait(false);
  stop_logging();
  stopped = true;
  writer.join();
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("after the stop"));
}

TEST(Logging, LimiterPassesOneLinePerInterval) {
  ::testing::internal::CaptureStderr();
  LogLimiter limiter(std::chrono::hours(1));
  LogLimiter open(std::chrono::milliseconds(0));
  for (int i = 0; i < 5; ++i) limiter.log(LogLevel::kError, "database away");
  for (int i = 0; i < 2; ++i) open.log(LogLevel::kError, "other");
  const std::string written = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(written.begin(), written.end(), '\n'), 3) << written;
}

TEST(Logging, UnknownSettingsNameWhatIsAccepted) {
  LogFormat format = LogFormat::kAuto;
  LogLevel level = LogLevel::kInfo;
  EXPECT_THAT(parse_log_format("xml", format),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("auto, text or json")));
  EXPECT_THAT(parse_log_level("loud", level),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'loud'")));
  EXPECT_TRUE(parse_log_format("json", format).ok());
  EXPECT_EQ(format, LogFormat::kJson);
  EXPECT_TRUE(parse_log_level("error", level).ok());
  EXPECT_EQ(level, LogLevel::kError);
}

}  // namespace
}  // namespace qaas
