#include "storage/checkpoint/config_fields.h"

#include <algorithm>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include "storage/checkpoint/strict_json.h"

namespace qaas {

using nlohmann::json;

const json* ConfigFields::find(const char* name) const {
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

bool ConfigFields::has(const char* name) const { return find(name) != nullptr; }

void ConfigFields::fail(const std::string& name, const std::string& what) {
  if (status_.ok()) {
    status_ = absl::InvalidArgumentError(absl::StrCat("field '", path_, name, "': ", what));
  }
}

const json* ConfigFields::find_or_default(const char* name, bool has_default) {
  const json* value = find(name);
  if (value == nullptr && has_default) {
    defaulted_.push_back(path_ + name);
  } else if (value == nullptr) {
    fail(name, "is missing");
  }
  return value;
}

void ConfigFields::accept_only(std::initializer_list<const char*> names) {
  for (const auto& [name, value] : object_.items()) {
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      fail(name, absl::StrCat("is ", describe_json(value),
                              "; accepted fields: ", absl::StrJoin(names, ", ")));
    }
  }
}

int64_t ConfigFields::integer(const char* name, int64_t low, int64_t high,
                              std::optional<int64_t> absent) {
  const json* value = find_or_default(name, absent.has_value());
  if (value == nullptr) return absent.value_or(low);
  const bool fits = value->is_number_integer() &&
                    !(value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX);
  const int64_t result = fits ? value->get<int64_t>() : 0;
  if (!fits || result < low || result > high) {
    fail(name, absl::StrCat("is ", describe_json(*value), ", expected an integer from ", low,
                            " to ", high));
    return low;
  }
  return result;
}

double ConfigFields::number(const char* name, double low, double high,
                            std::optional<double> absent) {
  const json* value = find_or_default(name, absent.has_value());
  if (value == nullptr) return absent.value_or(low);
  const double result = value->is_number() ? value->get<double>() : 0.0;
  if (!value->is_number() || !(result >= low && result <= high)) {
    fail(name, absl::StrCat("is ", describe_json(*value), ", expected a number from ", low, " to ",
                            high));
    return low;
  }
  return result;
}

bool ConfigFields::boolean(const char* name, bool absent) {
  const json* value = find_or_default(name, /*has_default=*/true);
  if (value == nullptr) return absent;
  if (!value->is_boolean()) {
    fail(name, absl::StrCat("is ", describe_json(*value), ", expected true or false"));
    return absent;
  }
  return value->get<bool>();
}

std::string ConfigFields::string(const char* name, std::optional<std::string> absent) {
  const json* value = find_or_default(name, absent.has_value());
  if (value == nullptr) return absent.value_or("");
  if (!value->is_string()) {
    fail(name, absl::StrCat("is ", describe_json(*value), ", expected a string"));
    return "";
  }
  return value->get<std::string>();
}

}  // namespace qaas
