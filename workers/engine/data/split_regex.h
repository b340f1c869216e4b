#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

namespace qaas {

/// A regular expression of a tokenizer.json, which is written for Oniguruma, run by PCRE2 with its
/// UTF and UCP options. Thread-safe once made.
class SplitRegex {
 public:
  /// Takes the part of the syntax that means the same to both engines; kInvalidArgument names the
  /// first construct outside it, and refuses patterns that can match nothing at all.
  static absl::StatusOr<SplitRegex> compile(std::string_view pattern);
  /// Matches exactly the text `literal`.
  static absl::StatusOr<SplitRegex> compile_literal(std::string_view literal);

  /// Cuts valid UTF-8 `text` into its matches and the gaps between them ("isolated"), in order,
  /// none empty, and appends them to `pieces` as views of `text`. kInvalidArgument if matching
  /// takes more steps than PCRE2 allows.
  absl::Status split(std::string_view text, std::vector<std::string_view>& pieces) const;

 private:
  struct Code;
  static absl::StatusOr<SplitRegex> compile(std::string_view pattern, uint32_t options);
  std::shared_ptr<const Code> code_;
};

/// The PCRE2 spelling of an Oniguruma pattern; fails as SplitRegex::compile.
absl::StatusOr<std::string> to_pcre2(std::string_view pattern);

}  // namespace qaas
