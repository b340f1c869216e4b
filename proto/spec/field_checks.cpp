#include "proto/spec/field_checks.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

namespace qaas {
namespace {

constexpr size_t kLongestPattern = 256;
constexpr size_t kLongestName = 128;

bool contains(const Interval& interval, double value) {
  if (!std::isfinite(value)) return false;
  const bool above = interval.open_low ? value > interval.low : value >= interval.low;
  return above && (interval.open_high ? value < interval.high : value <= interval.high);
}

std::string to_string(const Interval& interval) {
  if (!interval.open_low && !interval.open_high) {
    return absl::StrCat(interval.low, " to ", interval.high);
  }
  return absl::StrCat(interval.open_low ? "more than " : "at least ", interval.low, " and ",
                      interval.open_high ? "less than " : "at most ", interval.high);
}

}  // namespace

std::string quoted(absl::string_view text) {
  constexpr size_t kMost = 80;
  const bool cut = text.size() > kMost;
  return absl::StrCat("'", absl::CHexEscape(text.substr(0, kMost)), cut ? "...'" : "'");
}

std::string enumerators(const google::protobuf::EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 1; i < type.value_count(); ++i) names.push_back(type.value(i)->name());
  return absl::StrJoin(names, ", ");
}

void FieldChecks::name(const std::string& field, absl::string_view collection,
                       absl::string_view name) {
  const std::string form =
      absl::StrCat(collection, "/NAME with NAME of 1 to ", kLongestName,
                   " letters, digits, '.', '_' and '-', beginning with a letter or a digit");
  if (name.empty()) {
    add(field, absl::StrCat("missing; accepted: ", form));
    return;
  }
  const std::string prefix = absl::StrCat(collection, "/");
  const absl::string_view id =
      name.substr(0, prefix.size()) == prefix ? name.substr(prefix.size()) : absl::string_view();
  const auto alphanumeric = [](unsigned char c) { return c < 128 && std::isalnum(c) != 0; };
  const bool good = !id.empty() && id.size() <= kLongestName && alphanumeric(id[0]) &&
                    std::all_of(id.begin(), id.end(), [&](char c) {
                      return alphanumeric(c) || c == '.' || c == '_' || c == '-';
                    });
  if (!good) add(field, absl::StrCat("found ", quoted(name), "; accepted: ", form));
}

void FieldChecks::integer(const std::string& field, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    add(field, absl::StrCat("found ", value, "; accepted: ", low, " to ", high));
  }
}

void FieldChecks::number(const std::string& field, double value, const Interval& accepted) {
  if (!contains(accepted, value)) {
    add(field, absl::StrCat("found ", value, "; accepted: ", to_string(accepted)));
  }
}

void FieldChecks::enumerator(const std::string& field, int value,
                             const google::protobuf::EnumDescriptor& type) {
  if (type.FindValueByNumber(value) == nullptr) {
    add(field, absl::StrCat("found unknown value ", value, "; accepted: ", enumerators(type)));
  }
}

void FieldChecks::pattern(const std::string& field, absl::string_view pattern) {
  if (pattern.empty()) {
    add(field,
        "missing; accepted: a projection name such as 'model.layers.0.mlp.down_proj', where '*' "
        "stands for any run of characters");
  } else if (pattern.size() > kLongestPattern) {
    add(field,
        absl::StrCat("found ", pattern.size(), " characters; accepted: at most ", kLongestPattern));
  }
}

}  // namespace qaas
