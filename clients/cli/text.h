#pragma once

#include <cstdint>
#include <string>
#include <vector>

/// Text for a terminal. Everything here is a pure function.
namespace qaas::cli {

/// `text` safe to print: control characters, DEL and bytes that are not UTF-8 become \xNN, so that
/// text from a server can neither move the cursor nor forge a line. "\n" is escaped too.
std::string printable(const std::string& text);

/// "512 B", "7.6 MB", "1.2 GB": powers of 1000. Negative counts as 0.
std::string format_bytes(int64_t bytes);

/// "0.4 s", "12 s", "2m 05s", "3h 07m", "2d 04h". Negative or not finite: "-".
std::string format_duration(double seconds);

/// "950", "1.2k", "3.4M", "7.0B".
std::string format_count(double count);

/// A number with `digits` significant digits, "-" where not finite.
std::string format_number(double value, int digits = 4);

/// The same with its sign: "+0.0123".
std::string format_signed(double value, int digits = 4);

/// "[#######-------------]" with `width` cells; `fraction` is clamped to 0..1.
std::string progress_bar(double fraction, int width);

/// `text` cut to `columns` characters of UTF-8, the last ones "..." where it was longer.
std::string fit(const std::string& text, int columns);

/// Columns of text: the first is left-aligned, others as asked for; two spaces between.
class Table {
 public:
  enum class Align { kLeft, kRight };

  /// `header` names the columns; all but the first are aligned as `align`.
  explicit Table(std::vector<std::string> header, Align align = Align::kLeft);

  /// Missing cells are empty; more cells than columns is a programming error.
  void add_row(std::vector<std::string> cells);

  /// Lines, each ended by "\n", without trailing blanks.
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
  Align align_;
};

}  // namespace qaas::cli
