#include "workers/engine/data/split_regex.h"

#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using ::qaas::testing::IsOk;
using ::qaas::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

constexpr char kLlama3[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::vector<std::string> split(const char* pattern, std::string_view text) {
  const auto regex = SplitRegex::compile(pattern);
  EXPECT_THAT(regex, IsOk());
  if (!regex.ok()) return {};
  std::vector<std::string_view> views;
  EXPECT_THAT(regex->split(text, views), IsOk());
  return {views.begin(), views.end()};
}

TEST(SplitRegex, KeepsMatchesAndTheGapsBetweenThem) {
  EXPECT_THAT(split(R"(\d+)", "ab12c3"), ElementsAre("ab", "12", "c", "3"));
  EXPECT_THAT(split(R"(\d+)", "12"), ElementsAre("12"));
  EXPECT_THAT(split(R"(\d+)", "ab"), ElementsAre("ab"));
  EXPECT_THAT(split(R"(\d+)", ""), ElementsAre());
}

TEST(SplitRegex, CutsAsLlama3Does) {
  EXPECT_THAT(
      split(kLlama3, "I'VE 12345 tests,\n\n  don't  "),
      ElementsAre("I", "'VE", " ", "123", "45", " tests", ",\n\n", " ", " don", "'t", "  "));
  EXPECT_THAT(split(kLlama3, "h\u00e9 \u4f60\u597d\u00a0x"),
              ElementsAre("h\u00e9", " \u4f60\u597d", "\u00a0x"));
}

TEST(SplitRegex, KnowsUnicodesWhiteSpaceAndNothingMore) {
  for (const char* space : {"\u0085", "\u00a0", "\u1680", "\u2000", "\u2028", "\u202f", "\u3000"}) {
    EXPECT_THAT(split(R"(\s+)", std::string("a") + space + "b"), ElementsAre("a", space, "b"));
    EXPECT_THAT(split(R"(\S+)", std::string("a") + space), ElementsAre("a", space));
    EXPECT_THAT(split(R"([^\s]+)", std::string("a") + space), ElementsAre("a", space));
  }
  for (const char* other : {"\u180e", "\u200b", "\ufeff"}) {
    EXPECT_THAT(split(R"(\s+)", std::string("a") + other), ElementsAre(std::string("a") + other));
  }
}

TEST(SplitRegex, HandlesLongRunsOfBlanks) {
  const std::string blanks(200'000, ' ');
  EXPECT_THAT(split(kLlama3, blanks + "x"), ElementsAre(blanks.substr(1), " x"));
}

TEST(SplitRegex, TakesALiteralLiterally) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto regex, SplitRegex::compile_literal("a.b("));
  std::vector<std::string_view> pieces;
  ASSERT_THAT(regex.split("xa.b(aXb(", pieces), IsOk());
  EXPECT_THAT(pieces, ElementsAre("x", "a.b(", "aXb("));
}

TEST(SplitRegex, RefusesConstructsThatTheTwoEnginesReadDifferently) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"^a", "anchor"},
      {"a$", "anchor"},
      {R"(\w+)", R"('\w')"},
      {R"(\h)", R"('\h')"},
      {R"(\bword)", R"('\b')"},
      {R"([\S])", "in a class"},
      {R"([\w])", "in a class"},
      {"[[:alpha:]]", "class inside a class"},
      {"[a-z&&[^b]]", "intersection"},
      {"[]a]", "first character of a class"},
      {"a{1,3}+", "after a counted repeat"},
      {"a{,3}", "'{'"},
      {R"(\p{Han}+)", "property"},
      {R"(\p{^L})", "property"},
      {R"(\pL)", "property"},
      {"(?<name>a)", "group"},
      {"(?m:a)", "group"},
      {"(*UTF)a", "group"},
      {R"((a)\1)", R"('\1')"},
      {"[a", "unfinished class"},
      {"a\\", "escape"},
  };
  for (const auto& [pattern, message] : cases) {
    EXPECT_THAT(SplitRegex::compile(pattern), StatusIs(kInvalid, HasSubstr(message))) << pattern;
  }
}

TEST(SplitRegex, RefusesPatternsThatMatchNothingAtAll) {
  for (const char* pattern : {"", "a*", "a?|b", R"((?=\p{L}))"}) {
    EXPECT_THAT(SplitRegex::compile(pattern), StatusIs(kInvalid, HasSubstr("empty text")))
        << pattern;
  }
}

TEST(SplitRegex, RefusesPatternsThatDoNotCompile) {
  EXPECT_THAT(SplitRegex::compile("(a"), StatusIs(kInvalid, HasSubstr("regular expression")));
  EXPECT_THAT(SplitRegex::compile("\xff"), StatusIs(kInvalid, HasSubstr("regular expression")));
}

}  // namespace
}  // namespace qaas
