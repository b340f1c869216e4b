#pragma once

#include <ostream>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qaas::testing {

inline const absl::Status& status_of(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& status_of(const absl::StatusOr<T>& result) {
  return result.status();
}

/// Matches a Status or StatusOr that is OK.
MATCHER(IsOk, "is OK") {
  *result_listener << "which is " << status_of(arg).ToString();
  return status_of(arg).ok();
}

/// Matches a Status or StatusOr with this code whose message matches `message`.
MATCHER_P2(StatusIs, code, message,
           "has code " + absl::StatusCodeToString(code) + " and a message that " +
               ::testing::DescribeMatcher<std::string>(message, negation)) {
  const absl::Status& status = status_of(arg);
  *result_listener << "which is " << status.ToString();
  return status.code() == code &&
         ::testing::ExplainMatchResult(message, std::string(status.message()), result_listener);
}

}  // namespace qaas::testing

/// Fails the test unless `expression` is OK; else assigns its value to `declaration`.
#define QAAS_ASSERT_OK_AND_ASSIGN(declaration, expression) \
  QAAS_ASSERT_OK_AND_ASSIGN_IMPL(QAAS_CONCATENATE(status_or_, __LINE__), declaration, expression)
#define QAAS_ASSERT_OK_AND_ASSIGN_IMPL(temporary, declaration, expression) \
  auto temporary = (expression);                                           \
  ASSERT_TRUE(temporary.ok()) << temporary.status().ToString();            \
  declaration = std::move(temporary).value()
#define QAAS_CONCATENATE(a, b) QAAS_CONCATENATE_IMPL(a, b)
#define QAAS_CONCATENATE_IMPL(a, b) a##b
