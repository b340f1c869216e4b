#include "workers/engine/report/markup.h"

#include <cmath>

#include <gtest/gtest.h>

namespace qaas::report {
namespace {

TEST(Markup, EscapesWhatWouldEndTextOrAttribute) {
  EXPECT_EQ(escaped("<a href=\"x\">'&'</a>"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
}

TEST(Markup, ReplacesControlCharactersAndKeepsOtherLetters) {
  EXPECT_EQ(escaped(std::string("a\0b\x1b\x7f\n\tä漢", 12)), "a\uFFFDb\uFFFD\uFFFD\n\tä漢");
}

TEST(Markup, NumbersKeepTheirSignificantDigits) {
  EXPECT_EQ(number(2.53451), "2.535");
  EXPECT_EQ(number(115.412), "115.4");
  EXPECT_EQ(number(0.00123456, 3), "0.00123");
  EXPECT_EQ(number(1234567, 3), "1234567");
  EXPECT_EQ(number(123456789, 3), "1.23e+08");
  EXPECT_EQ(number(0.0000123, 2), "1.2e-05");
  EXPECT_EQ(number(-0.5, 2), "−0.50");
  EXPECT_EQ(number(0), "0");
}

TEST(Markup, NumbersThatAreNotFiniteAreADash) {
  for (const double value : {double(NAN), double(INFINITY), -double(INFINITY)}) {
    EXPECT_EQ(number(value), "–");
    EXPECT_EQ(signed_number(value), "–");
    EXPECT_EQ(percent(value), "–");
    EXPECT_EQ(duration(value), "–");
  }
}

TEST(Markup, SaysUnitsAsAPersonWould) {
  EXPECT_EQ(signed_number(0.6472), "+0.647");
  EXPECT_EQ(signed_number(-0.021), "−0.0210");
  EXPECT_EQ(percent(0.1234), "12.3 %");
  EXPECT_EQ(percent(-0.5, 0), "−50 %");
  EXPECT_EQ(byte_count(999), "999 B");
  EXPECT_EQ(byte_count(5100000), "5.10 MB");
  EXPECT_EQ(byte_count(999999), "1.00 MB");
  EXPECT_EQ(duration(0.85), "850 ms");
  EXPECT_EQ(duration(12.5), "12.5 s");
  EXPECT_EQ(duration(200), "3 min 20 s");
  EXPECT_EQ(duration(7500), "2 h 5 min");
  EXPECT_EQ(whole(98304), "98,304");
  EXPECT_EQ(whole(-1234567), "−1,234,567");
  EXPECT_EQ(whole(999), "999");
  EXPECT_EQ(rounded(1234.5), "1,235");
  EXPECT_EQ(rounded(1e300), "–");
}

}  // namespace
}  // namespace qaas::report
