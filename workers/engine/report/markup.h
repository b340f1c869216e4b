#pragma once

#include <cstdint>
#include <string>
#include <string_view>

/// Text for a page: escaping, and numbers as a person reads them. Everything here is valid inside
/// HTML and XML, and thread-safe.
namespace qaas::report {

/// `text` with markup escaped; control characters, which XML cannot hold, become U+FFFD.
std::string escaped(std::string_view text);

/// "0.6472", "12.0", "1.3e-05" with `digits` significant digits; "–" where `value` is not finite.
std::string number(double value, int digits = 4);

/// The same with a sign: "+0.647", "−0.021" (U+2212).
std::string signed_number(double value, int digits = 3);

/// A share of 1 as "12.3 %".
std::string percent(double share, int decimals = 1);

/// "5.1 MB": decimal units.
std::string byte_count(int64_t bytes);

/// "850 ms", "12.5 s", "3 min 20 s", "2 h 5 min".
std::string duration(double seconds);

/// "98,304".
std::string whole(int64_t value);
/// The same of the nearest whole number; "–" where `value` is not finite or beyond 64 bits.
std::string rounded(double value);

}  // namespace qaas::report
