#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <absl/status/statusor.h>
#include <nlohmann/json.hpp>

namespace qaas {

/// Bounds on a JSON document from a user's file, so that a hostile one costs little.
struct JsonLimits {
  int64_t max_depth = 32;           ///< objects and arrays inside one another
  int64_t max_values = 16'000'000;  ///< values of all kinds, keys not counted
};

/// Parses UTF-8 JSON. kInvalidArgument, with the byte position, for anything that is not exactly
/// one JSON document, for a key that occurs twice in one object, and beyond `limits`.
absl::StatusOr<nlohmann::json> parse_strict_json(std::string_view text, const JsonLimits& limits);

/// Whether `text` is well-formed UTF-8 (no overlong forms, no surrogates).
bool is_valid_utf8(std::string_view text);

/// What a JSON value is, for messages: "a string", "null", "the number 3", "an object".
std::string describe_json(const nlohmann::json& value);

}  // namespace qaas
