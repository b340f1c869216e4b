#pragma once

#include <string>
#include <variant>
#include <vector>

#include <absl/status/statusor.h>
#include <nlohmann/json.hpp>

namespace qaas {

/// The "normalizer" of a tokenizer.json: NFC, Prepend, Replace of a fixed string, and sequences of
/// them. Thread-safe once made.
class TextNormalizer {
 public:
  /// null is the identity. kInvalidArgument names the part that is not supported.
  static absl::StatusOr<TextNormalizer> parse(const nlohmann::json& normalizer);

  /// `text` is valid UTF-8.
  std::string normalize(std::string text) const;

 private:
  struct Nfc {};
  struct Prepend {
    std::string prefix;
  };
  struct Replace {
    std::string from, to;
  };
  absl::Status append(const nlohmann::json& normalizer, const std::string& path);
  std::vector<std::variant<Nfc, Prepend, Replace>> steps_;
};

}  // namespace qaas
