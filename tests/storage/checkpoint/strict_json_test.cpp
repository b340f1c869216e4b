#include "storage/checkpoint/strict_json.h"

#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using ::qaas::testing::IsOk;
using ::qaas::testing::StatusIs;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(StrictJson, ReadsAPlainDocument) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto document,
                            parse_strict_json(R"({"a": [1, {"a": null}], "b": "ü"})", {}));
  EXPECT_EQ(document["a"][0], 1);
  EXPECT_EQ(document["b"], "ü");
}

TEST(StrictJson, RefusesADuplicateKeyAtAnyDepthByName) {
  EXPECT_THAT(parse_strict_json(R"({"a": 1, "a": 1})", {}),
              StatusIs(kInvalid, HasSubstr("'a' occurs twice")));
  EXPECT_THAT(parse_strict_json(R"([{"x": {"deep": 1, "y": 2, "deep": 3}}])", {}),
              StatusIs(kInvalid, HasSubstr("'deep' occurs twice")));
}

TEST(StrictJson, AcceptsTheSameKeyInDifferentObjects) {
  EXPECT_THAT(parse_strict_json(R"({"a": {"a": 1}, "b": {"a": [{"a": 2}, {"a": 3}]}})", {}),
              IsOk());
}

TEST(StrictJson, RefusesWhatIsNotExactlyOneDocument) {
  using std::string_literals::operator""s;
  for (const std::string& text :
       {""s, " "s, "{"s, "{} {}"s, "{}x"s, "{\"a\":}"s, "[1,]"s, "nul"s, "{}\0"s, "{}\0{"s,
        "\xEF\xBB\xBF{}"s, "[1e999]"s, "[01]"s, "// a\n{}"s, "[\"\x80\"]"s, "[\"\xED\xA0\x80\"]"s,
        "[NaN]"s, "['a']"s}) {
    EXPECT_THAT(parse_strict_json(text, {}), StatusIs(kInvalid, HasSubstr("not valid JSON")))
        << text;
  }
}

TEST(StrictJson, RefusesNestingBeyondTheLimitWithoutBuildingIt) {
  EXPECT_THAT(parse_strict_json("[[[1]]]", {.max_depth = 3}), IsOk());
  EXPECT_THAT(parse_strict_json("[[[[1]]]]", {.max_depth = 3}),
              StatusIs(kInvalid, HasSubstr("deeper than 3")));
  EXPECT_THAT(parse_strict_json(std::string(10'000'000, '['), {}),
              StatusIs(kInvalid, HasSubstr("deeper than 32")));
}

TEST(StrictJson, RefusesMoreValuesThanTheLimit) {
  EXPECT_THAT(parse_strict_json("[1,2,3]", {.max_values = 4}), IsOk());
  EXPECT_THAT(parse_strict_json("[1,2,3,4]", {.max_values = 4}),
              StatusIs(kInvalid, HasSubstr("more than 4")));
}

TEST(Utf8, TellsWellFormedTextFromTheRest) {
  for (const char* good :
       {"", "a", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_TRUE(is_valid_utf8(good)) << ::testing::PrintToString(good);
  }
  for (const char* bad :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2\x41", "\xE0\x9F\xBF", "\xE0\xA0",
        "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
        "\xF0\x90\x80", "\xFF", "a\xFE", "\xE2\x82\xC2\x80"}) {
    EXPECT_FALSE(is_valid_utf8(bad)) << ::testing::PrintToString(bad);
  }
}

}  // namespace
}  // namespace qaas
