#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <absl/strings/string_view.h>
#include <google/protobuf/descriptor.h>

#include "proto/spec/job_spec.h"

/// Checks of single fields, and the topics they are grouped into; shared by the files of this
/// folder.
namespace qaas {

/// The numbers a field accepts. `open_low` and `open_high` exclude the end itself.
struct Interval {
  double low = 0;
  double high = 0;
  bool open_low = false;
  bool open_high = false;
};

inline constexpr Interval kFraction{.low = 0, .high = 1};
inline constexpr int kMostPatterns = 64;  ///< overrides, or frozen patterns

/// A caller's text as it may appear in a message: quoted, escaped, not longer than a line.
std::string quoted(absl::string_view text);

/// Enumerators of an enum, without the unspecified one: "A, B, C".
std::string enumerators(const google::protobuf::EnumDescriptor& type);

/// Collects what is wrong, in the order of the calls. Every check adds at most one violation.
class FieldChecks {
 public:
  void add(std::string field, std::string description) {
    violations_.push_back({std::move(field), std::move(description)});
  }

  /// "{collection}/NAME".
  void name(const std::string& field, absl::string_view collection, absl::string_view name);
  void integer(const std::string& field, int64_t value, int64_t low, int64_t high);
  void number(const std::string& field, double value, const Interval& accepted);
  /// A known enumerator, or unspecified.
  void enumerator(const std::string& field, int value,
                  const google::protobuf::EnumDescriptor& type);
  /// A pattern over projection names: there, and not too long.
  void pattern(const std::string& field, absl::string_view pattern);

  std::vector<FieldViolation> take() { return std::move(violations_); }

 private:
  std::vector<FieldViolation> violations_;
};

/// Each looks at one topic of `spec`, as the caller wrote it; `full` is the same with the defaults
/// that need no model. What they accept is documented in job_spec.proto.

/// Grids, overrides, initialisation, activations, head and embedding, automatic choice, runtimes.
void check_quantization(const v1::JobSpec& spec, const v1::JobSpec& full, FieldChecks& checks);
/// Calibration and evaluation texts, tasks.
void check_data(const v1::JobSpec& spec, FieldChecks& checks);
/// Preset and training stages.
void check_training(const v1::JobSpec& spec, const v1::JobSpec& full, FieldChecks& checks);

}  // namespace qaas
