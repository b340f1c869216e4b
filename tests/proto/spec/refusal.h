#pragma once

#include <functional>
#include <ostream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/spec/job_spec.h"
#include "tests/proto/spec/sample_job.h"

namespace qaas {

inline void PrintTo(const FieldViolation& violation, std::ostream* out) {
  *out << violation.field << ": " << violation.description;
}

namespace testing {

/// A violation of `field` whose description contains `words`.
inline auto violation(const std::string& field, const std::string& words) {
  return ::testing::AllOf(
      ::testing::Field(&FieldViolation::field, field),
      ::testing::Field(&FieldViolation::description, ::testing::HasSubstr(words)));
}

/// One edit of a valid spec and the single violation it must lead to.
struct Refusal {
  const char* name;
  std::function<void(v1::JobSpec&)> edit;
  const char* field;
  const char* words;
};
inline void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.name; }

/// Edits a minimal spec and expects exactly the named violation.
class SpecRefusal : public ::testing::TestWithParam<Refusal> {
 protected:
  void expect_refusal() {
    v1::JobSpec spec = minimal_spec();
    GetParam().edit(spec);
    EXPECT_THAT(validate(spec),
                ::testing::ElementsAre(violation(GetParam().field, GetParam().words)));
  }
};

}  // namespace testing
}  // namespace qaas
