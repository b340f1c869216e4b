#include "storage/database/job_row.h"

#include <set>

#include <absl/strings/str_cat.h>

#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using namespace testing;  // NOLINT: the matchers' namespace
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string stored_message(const std::string& message) {
  v1::Failure failure;
  failure.set_message(message);
  return storable(failure).message();
}

TEST(JobRow, StorableKeepsWellFormedText) {
  const std::string text = "plain, \xC3\xA9, \xE2\x82\xAC, \xF0\x9F\x98\x80, \n";
  EXPECT_EQ(stored_message(text), text);
}

TEST(JobRow, StorableReplacesWhatIsNotText) {
  EXPECT_EQ(stored_message(std::string("a\0b", 3)), "a?b");
  EXPECT_EQ(stored_message("cut \xE2\x82"), "cut ??");
  EXPECT_EQ(stored_message("overlong \xC0\xAF"), "overlong ??");
  EXPECT_EQ(stored_message("overlong \xE0\x80\xAF"), "overlong ???");
  EXPECT_EQ(stored_message("surrogate \xED\xA0\x80"), "surrogate ???");
  EXPECT_EQ(stored_message("too large \xF4\x90\x80\x80"), "too large ????");
  EXPECT_EQ(stored_message("stray \x80\xFF"), "stray ??");
}

TEST(JobRow, StorableCutsTheMiddleOfLongTexts) {
  const std::string stored =
      stored_message(absl::StrCat("first", std::string(100000, '.'), "last"));
  EXPECT_LT(stored.size(), 8300U);
  EXPECT_THAT(stored, StartsWith("first"));
  EXPECT_THAT(stored, ::testing::EndsWith("last"));
  EXPECT_THAT(stored, HasSubstr("[...]"));
}

TEST(JobRow, StorableFailureAlwaysHasJson) {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes.push_back(static_cast<char>(byte));
  v1::Failure failure;
  failure.set_message(bytes);
  failure.set_code(bytes);
  failure.set_position(bytes);
  QAAS_ASSERT_OK_AND_ASSIGN(const std::string json, to_json(storable(failure)));
  v1::Failure back;
  ASSERT_THAT(from_json(json, "failure", back), IsOk());
  EXPECT_EQ(back.SerializeAsString(), storable(failure).SerializeAsString());
}

TEST(JobRow, JsonKeepsDoublesToTheLastBit) {
  v1::Forecast forecast;
  for (const double value : {0.1, 1.0 / 3.0, 5e-324, 1.7976931348623157e308}) {
    forecast.mutable_quantized()->set_error(value);
    QAAS_ASSERT_OK_AND_ASSIGN(const std::string json, to_json(forecast));
    v1::Forecast back;
    ASSERT_THAT(from_json(json, "forecast", back), IsOk());
    EXPECT_EQ(back.SerializeAsString(), forecast.SerializeAsString()) << json;
  }
}

TEST(JobRow, JsonOfANewerReleaseIsRead) {
  v1::Failure failure;
  ASSERT_THAT(from_json(R"({"message": "m", "invented_later": 3})", "failure", failure), IsOk());
  EXPECT_EQ(failure.message(), "m");
}

TEST(JobRow, UnreadableColumnsAreNamed) {
  v1::Failure failure;
  EXPECT_THAT(from_json("[]", "failure", failure),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("'failure'")));
  EXPECT_THAT(from_hex("0a05", "payload", failure),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("'payload'")));
}

TEST(JobRow, EveryStateHasANameOfItsOwn) {
  std::set<std::string> names;
  for (int state = v1::JobState_MIN + 1; state <= v1::JobState_MAX; ++state) {
    const std::string name = state_name(static_cast<v1::JobState>(state));
    EXPECT_FALSE(name.empty()) << state;
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_EQ(state_from_name(name), state);
  }
}

TEST(JobRow, UuidsAreRandomAndWellFormed) {
  const std::string one = random_uuid();
  EXPECT_TRUE(is_uuid(one)) << one;
  EXPECT_EQ(one[14], '4');
  EXPECT_NE(one, random_uuid());
  EXPECT_FALSE(is_uuid(""));
  EXPECT_FALSE(is_uuid(one.substr(1)));
  EXPECT_FALSE(is_uuid(absl::StrCat(one.substr(0, 35), "g")));
}

TEST(JobRow, TimesKeepTheirMicroseconds) {
  const google::protobuf::Timestamp time = to_timestamp(1700000000123456);
  EXPECT_EQ(time.seconds(), 1700000000);
  EXPECT_EQ(time.nanos(), 123456000);
}

}  // namespace
}  // namespace qaas
