#include "storage/database/retry_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qaas {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr v1::FailureClass kCaller = v1::FAILURE_CLASS_CALLER;
constexpr v1::FailureClass kResource = v1::FAILURE_CLASS_RESOURCE;
constexpr v1::FailureClass kInfrastructure = v1::FAILURE_CLASS_INFRASTRUCTURE;
constexpr v1::FailureClass kInternal = v1::FAILURE_CLASS_INTERNAL;

v1::Failure failure(v1::FailureClass failure_class, const std::string& position = "") {
  v1::Failure failure;
  failure.set_failure_class(failure_class);
  failure.set_position(position);
  return failure;
}

const RetryOptions kOptions{
    .max_failures = 4, .first_backoff = milliseconds{100}, .max_backoff = milliseconds{300}};

TEST(RetryPolicy, CallersFaultIsNeverRetried) {
  const RetryDecision decision = decide_retry(failure(kCaller), {}, kOptions);
  EXPECT_FALSE(decision.retry);
  EXPECT_THAT(decision.reason, HasSubstr("as submitted"));
}

TEST(RetryPolicy, ResourceAndInfrastructureAreRetriedUntilTheLimit) {
  for (const v1::FailureClass kind : {kResource, kInfrastructure}) {
    std::vector<v1::Failure> earlier;
    for (int i = 1; i < kOptions.max_failures; ++i) {
      EXPECT_TRUE(decide_retry(failure(kind), earlier, kOptions).retry) << "failure " << i;
      earlier.push_back(failure(kind));
    }
    const RetryDecision last = decide_retry(failure(kind), earlier, kOptions);
    EXPECT_FALSE(last.retry);
    EXPECT_THAT(last.reason, HasSubstr("failed 4 times"));
  }
}

TEST(RetryPolicy, BackoffDoublesUpToItsLimit) {
  const v1::Failure lost = failure(kInfrastructure);
  EXPECT_EQ(decide_retry(lost, {}, kOptions).backoff, milliseconds{100});
  EXPECT_EQ(decide_retry(lost, {lost}, kOptions).backoff, milliseconds{200});
  EXPECT_EQ(decide_retry(lost, {lost, lost}, kOptions).backoff, milliseconds{300});
}

TEST(RetryPolicy, ReasonNamesTheWait) {
  EXPECT_EQ(decide_retry(failure(kResource), {}, {}).reason,
            "attempt failed, will be retried in 5 s");
}

TEST(RetryPolicy, InternalFailureIsRetriedOnce) {
  EXPECT_TRUE(decide_retry(failure(kInternal), {}, kOptions).retry);
  EXPECT_TRUE(decide_retry(failure(kInternal), {failure(kResource)}, kOptions).retry);
  EXPECT_FALSE(
      decide_retry(failure(kInternal), {failure(kInternal), failure(kResource)}, kOptions).retry);
}

TEST(RetryPolicy, UnspecifiedClassCountsAsInternal) {
  const v1::Failure unknown = failure(v1::FAILURE_CLASS_UNSPECIFIED);
  EXPECT_TRUE(decide_retry(unknown, {}, kOptions).retry);
  EXPECT_FALSE(decide_retry(unknown, {failure(kInternal)}, kOptions).retry);
}

TEST(RetryPolicy, SamePositionTwiceIsFinal) {
  const v1::Failure here = failure(kResource, "block 3 step 17");
  const v1::Failure elsewhere = failure(kInfrastructure, "block 3 step 18");
  EXPECT_TRUE(decide_retry(here, {elsewhere}, kOptions).retry);
  const RetryDecision decision = decide_retry(here, {here, elsewhere}, kOptions);
  EXPECT_FALSE(decision.retry);
  EXPECT_THAT(decision.reason, HasSubstr("block 3 step 17 for the second time"));
}

TEST(RetryPolicy, UnknownPositionsAreNotTheSame) {
  EXPECT_TRUE(decide_retry(failure(kResource), {failure(kResource)}, kOptions).retry);
}

}  // namespace
}  // namespace qaas
