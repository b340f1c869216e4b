#include "storage/checkpoint/strict_json.h"

#include <string>
#include <unordered_set>
#include <vector>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include "storage/checkpoint/message_text.h"

namespace qaas {
namespace {

/// Walks a document without building it: depth, number of values, duplicate keys, syntax. The
/// functions are those that nlohmann's sax_parse calls; false stops it.
class DocumentCheck {
 public:
  explicit DocumentCheck(const JsonLimits& limits) : limits_(limits) {}

  const absl::Status& status() const { return status_; }

  bool null() { return count_value(); }
  bool boolean(bool) { return count_value(); }
  bool number_integer(nlohmann::json::number_integer_t) { return count_value(); }
  bool number_unsigned(nlohmann::json::number_unsigned_t) { return count_value(); }
  bool number_float(nlohmann::json::number_float_t, const std::string&) { return count_value(); }
  bool string(std::string&) { return count_value(); }
  bool binary(nlohmann::json::binary_t&) { return count_value(); }
  bool start_object(std::size_t) { return enter(); }
  bool start_array(std::size_t) { return enter(); }
  bool end_object() { return leave(); }
  bool end_array() { return leave(); }

  bool key(std::string& key) {
    if (keys_.back().insert(key).second) return true;
    status_ = absl::InvalidArgumentError(
        absl::StrCat("key '", printable(key), "' occurs twice in one object"));
    return false;
  }

  bool parse_error(std::size_t position, const std::string& last_token,
                   const nlohmann::json::exception&) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat("not valid JSON at byte ", position, ", near '", printable(last_token), "'"));
    return false;
  }

 private:
  bool count_value() {
    if (++values_ <= limits_.max_values) return true;
    status_ =
        absl::InvalidArgumentError(absl::StrCat("more than ", limits_.max_values, " JSON values"));
    return false;
  }

  bool enter() {
    keys_.emplace_back();
    if (static_cast<int64_t>(keys_.size()) <= limits_.max_depth) return count_value();
    status_ = absl::InvalidArgumentError(
        absl::StrCat("JSON nested deeper than ", limits_.max_depth, " levels"));
    return false;
  }

  bool leave() {
    keys_.pop_back();
    return true;
  }

  JsonLimits limits_;
  absl::Status status_;
  int64_t values_ = 0;
  std::vector<std::unordered_set<std::string>> keys_;  // one set for each open object or array
};

}  // namespace

absl::StatusOr<nlohmann::json> parse_strict_json(std::string_view text, const JsonLimits& limits) {
  // The parser takes a zero byte for the end of its input, and skips a byte order mark.
  if (size_t zero = text.find('\0'); zero != std::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat("not valid JSON: zero byte at ", zero));
  }
  if (text.substr(0, 3) == "\xEF\xBB\xBF") {
    return absl::InvalidArgumentError("not valid JSON: starts with a byte order mark");
  }
  DocumentCheck check(limits);
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &check)) return check.status();
  return nlohmann::json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
}

bool is_valid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    size_t length = 0;
    uint32_t lowest = 0;
    if (lead < 0x80) {
      ++i;
      continue;
    }
    if (lead >= 0xC2 && lead <= 0xDF) {
      length = 2;
      lowest = 0x80;
    } else if ((lead & 0xF0) == 0xE0) {
      length = 3;
      lowest = 0x800;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      length = 4;
      lowest = 0x10000;
    } else {
      return false;
    }
    if (text.size() - i < length) return false;
    uint32_t point = lead & (0x7Fu >> length);
    for (size_t k = 1; k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xC0) != 0x80) return false;
      point = point << 6 | (next & 0x3Fu);
    }
    if (point < lowest || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) return false;
    i += length;
  }
  return true;
}

std::string describe_json(const nlohmann::json& value) {
  switch (value.type()) {
    case nlohmann::json::value_t::null:
      return "null";
    case nlohmann::json::value_t::object:
      return "an object";
    case nlohmann::json::value_t::array:
      return "an array";
    case nlohmann::json::value_t::string:
      return absl::StrCat("the string '", printable(value.get_ref<const std::string&>()), "'");
    case nlohmann::json::value_t::boolean:
      return value.get<bool>() ? "true" : "false";
    default:
      return absl::StrCat("the number ", value.dump());
  }
}

}  // namespace qaas
