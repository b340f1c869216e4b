#include "clients/cli/text.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clients/cli/names.h"

namespace qaas::cli {
namespace {

using ::testing::MatchesRegex;

TEST(Printable, LeavesTextAlone) {
  EXPECT_EQ(printable("model.layers.0 [2, 3] 100 %"), "model.layers.0 [2, 3] 100 %");
  EXPECT_EQ(printable("Grüße, 模型, 😀"), "Grüße, 模型, 😀");
}

TEST(Printable, EscapesWhatCouldMoveTheCursorOrForgeALine) {
  EXPECT_EQ(printable("a\x1b[2Jb\nc\td\x7f"), "a\\x1b[2Jb\\x0ac\\x09d\\x7f");
  EXPECT_EQ(printable(std::string("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(printable("\xc2\x9b[2J"), "\\xc2\\x9b[2J") << "C1 control sequence introducer";
  EXPECT_EQ(printable("a\xe2\x80\xae"
                      "b"),
            "a\\xe2\\x80\\xae"
            "b")
      << "right-to-left override";
  EXPECT_EQ(printable("\xe2\x81\xa6"), "\\xe2\\x81\\xa6") << "isolate";
}

TEST(Printable, EscapesBytesThatAreNotUtf8) {
  EXPECT_EQ(printable("\xff"), "\\xff");
  EXPECT_EQ(printable("\xc3"), "\\xc3") << "cut character";
  EXPECT_EQ(printable("\xc0\xaf"), "\\xc0\\xaf") << "overlong";
  EXPECT_EQ(printable("\xed\xa0\x80"), "\\xed\\xa0\\x80") << "surrogate";
  EXPECT_EQ(printable("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80") << "above U+10FFFF";
}

TEST(Format, BytesAndCountsTakeOneDecimal) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(1000), "1.0 kB");
  EXPECT_EQ(format_bytes(7'600'000), "7.6 MB");
  EXPECT_EQ(format_bytes(999'999'999), "1.0 GB") << "not 1000.0 MB";
  EXPECT_EQ(format_bytes(-5), "0 B");
  EXPECT_EQ(format_bytes(std::numeric_limits<int64_t>::max()), "9223372.0 TB");
  EXPECT_EQ(format_count(950), "950");
  EXPECT_EQ(format_count(1234), "1.2k");
  EXPECT_EQ(format_count(7e9), "7.0B");
  EXPECT_EQ(format_count(NAN), "-");
}

TEST(Format, DurationsUseTwoUnits) {
  EXPECT_EQ(format_duration(0), "0.0 s");
  EXPECT_EQ(format_duration(0.44), "0.4 s");
  EXPECT_EQ(format_duration(9.96), "10 s");
  EXPECT_EQ(format_duration(59.6), "1m 00s");
  EXPECT_EQ(format_duration(125), "2m 05s");
  EXPECT_EQ(format_duration(3 * 3600 + 7 * 60 + 59), "3h 07m");
  EXPECT_EQ(format_duration(2 * 86400 + 4 * 3600), "2d 04h");
  EXPECT_EQ(format_duration(-1), "-");
  EXPECT_EQ(format_duration(INFINITY), "-");
}

TEST(Format, NumbersKeepTheirSignificantDigits) {
  EXPECT_EQ(format_number(2.53451, 5), "2.5345");
  EXPECT_EQ(format_number(115.4139, 5), "115.41");
  EXPECT_EQ(format_number(0.000012345), "1.234e-05");
  EXPECT_EQ(format_number(12345.6), "12346");
  EXPECT_EQ(format_number(NAN), "-");
  EXPECT_EQ(format_signed(0.0123), "+0.0123");
  EXPECT_EQ(format_signed(-0.5), "-0.5");
  EXPECT_EQ(format_signed(0), "0");
}

TEST(ProgressBar, FillsWithTheFraction) {
  EXPECT_EQ(progress_bar(0, 10), "[----------]");
  EXPECT_EQ(progress_bar(0.42, 10), "[####------]");
  EXPECT_EQ(progress_bar(0.999, 10), "[#########-]") << "full only when done";
  EXPECT_EQ(progress_bar(1, 10), "[##########]");
  EXPECT_EQ(progress_bar(7, 10), "[##########]");
  EXPECT_EQ(progress_bar(-1, 10), "[----------]");
  EXPECT_EQ(progress_bar(NAN, 10), "[----------]");
}

TEST(Fit, CutsAtCharactersNotBytes) {
  EXPECT_EQ(fit("abc", 3), "abc");
  EXPECT_EQ(fit("abcdef", 5), "ab...");
  EXPECT_EQ(fit("ääääää", 5), "ää...");
  EXPECT_EQ(fit("abc", 2), "..");
  EXPECT_EQ(fit("abc", 0), "");
  EXPECT_EQ(fit("abc", -4), "");
}

TEST(TableText, AlignsColumnsWithoutTrailingBlanks) {
  Table table({"NAME", "SIZE"});
  table.add_row({"ä", "1"});
  table.add_row({"longer"});
  EXPECT_EQ(table.text(),
            "NAME    SIZE\n"
            "ä       1\n"
            "longer\n");
  Table numbers({"", "left", "right"}, Table::Align::kRight);
  numbers.add_row({"row", "1", "22"});
  EXPECT_EQ(numbers.text(),
            "     left  right\n"
            "row     1     22\n");
}

TEST(Names, TakeTheirCollectionOnce) {
  EXPECT_EQ(with_collection("jobs", "x"), "jobs/x");
  EXPECT_EQ(with_collection("jobs", "jobs/x"), "jobs/x");
  EXPECT_EQ(with_collection("models", "jobs/x"), "models/jobs/x");
  EXPECT_EQ(with_collection("jobs", ""), "");
  EXPECT_EQ(last_segment("jobs/x/artifacts/config.json"), "config.json");
  EXPECT_EQ(last_segment("x"), "x");
}

TEST(Names, OnlyPlainNamesBecomeFiles) {
  EXPECT_TRUE(is_plain_file_name("model-00001-of-00002.safetensors"));
  EXPECT_TRUE(is_plain_file_name("chat template.jinja"));
  for (const std::string& bad :
       {std::string(), std::string("."), std::string(".."), std::string(".bashrc"),
        std::string("a/b"), std::string("/etc"), std::string("a\\b"), std::string("a\nb"),
        std::string("a\0b", 3), std::string(201, 'a')}) {
    EXPECT_FALSE(is_plain_file_name(bad)) << bad;
  }
}

TEST(Names, RequestIdsAreDistinctVersionFourUuids) {
  const std::string first = random_uuid();
  EXPECT_THAT(first, MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-"
                                  "[0-9a-f]{12}"));
  EXPECT_NE(first, random_uuid());
}

}  // namespace
}  // namespace qaas::cli
