#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <nlohmann/json.hpp>

namespace qaas {

/// Reads typed fields of one JSON object. The first failure sticks in status(); reads after it give
/// values without meaning. Absent and null are the same, as in transformers.
class ConfigFields {
 public:
  /// `path` is the prefix of field names in messages: "" or "rope_scaling.". `object` must outlive
  /// this.
  ConfigFields(const nlohmann::json& object, std::string path)
      : object_(object), path_(std::move(path)) {}

  const absl::Status& status() const { return status_; }
  /// Fields that were absent and took their default, in the order of reading.
  const std::vector<std::string>& defaulted() const { return defaulted_; }

  bool has(const char* name) const;

  /// Without a default the field is required.
  int64_t integer(const char* name, int64_t low, int64_t high,
                  std::optional<int64_t> absent = std::nullopt);
  /// Any JSON number within [low, high].
  double number(const char* name, double low, double high,
                std::optional<double> absent = std::nullopt);
  bool boolean(const char* name, bool absent);
  std::string string(const char* name, std::optional<std::string> absent = std::nullopt);

  /// Fails for the first field that is not listed: what is not known must not be ignored.
  void accept_only(std::initializer_list<const char*> names);

  /// Takes over the failure of a reader of an object inside this one, unless there is one already.
  void absorb(const absl::Status& inner) { status_.Update(inner); }
  /// Records a failure about field `name`, unless there is one already.
  void fail(const std::string& name, const std::string& what);

 private:
  const nlohmann::json* find(const char* name) const;
  const nlohmann::json* find_or_default(const char* name, bool has_default);

  const nlohmann::json& object_;
  std::string path_;
  absl::Status status_;
  std::vector<std::string> defaulted_;
};

}  // namespace qaas
