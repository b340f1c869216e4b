#include "clients/cli/errors.h"

#include <string>
#include <vector>

#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace qaas::cli {
namespace {

using ::testing::HasSubstr;

grpc::Status invalid_fields() {
  google::rpc::BadRequest bad_request;
  auto* violation = bad_request.add_field_violations();
  violation->set_field("spec.weights.group_size");
  violation->set_description("found 48; accepted: 32, 64");
  violation = bad_request.add_field_violations();
  violation->set_field("spec.model\x1b[2J");
  violation->set_description("no model\nforged line");
  google::rpc::Status details;
  details.add_details()->PackFrom(google::rpc::ErrorInfo());
  details.add_details()->PackFrom(bad_request);
  return {grpc::StatusCode::INVALID_ARGUMENT, "2 fields are not acceptable",
          details.SerializeAsString()};
}

TEST(Errors, PrintFieldViolationsOneALineAndEscaped) {
  EXPECT_EQ(describe(from_grpc(invalid_fields())),
            "error: invalid argument: 2 fields are not acceptable\n"
            "  spec.weights.group_size: found 48; accepted: 32, 64\n"
            "  spec.model\\x1b[2J: no model\\x0aforged line\n");
}

TEST(Errors, PrintAViolationOnceWhereTheMessageHoldsItToo) {
  grpc::Status status = invalid_fields();
  status = {status.error_code(), "spec.weights.group_size: found 48; accepted: 32, 64; and 1 more",
            status.error_details()};
  EXPECT_EQ(describe(from_grpc(status)),
            "error: invalid argument\n"
            "  spec.weights.group_size: found 48; accepted: 32, 64\n"
            "  spec.model\\x1b[2J: no model\\x0aforged line\n");
}

TEST(Errors, PrintMessagesWhoseDetailsAreNoise) {
  EXPECT_EQ(describe(from_grpc({grpc::StatusCode::NOT_FOUND, "no such job", "\xff\xff"})),
            "error: not found: no such job\n");
}

TEST(Errors, ReadTheDelayAServerAsksFor) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(2);
  retry.mutable_retry_delay()->set_nanos(500'000'000);
  google::rpc::Status details;
  details.add_details()->PackFrom(retry);
  EXPECT_EQ(retry_delay(from_grpc(
                {grpc::StatusCode::FAILED_PRECONDITION, "scanning", details.SerializeAsString()})),
            std::chrono::milliseconds(2500));
  EXPECT_EQ(retry_delay(from_grpc(invalid_fields())), std::nullopt);
  EXPECT_EQ(retry_delay(absl::OkStatus()), std::nullopt);
}

TEST(ExitCodes, TellScriptsWhatHappened) {
  struct Expected {
    absl::StatusCode code;
    int exit;
  };
  for (const Expected& expected : std::vector<Expected>{{absl::StatusCode::kOk, 0},
                                                        {absl::StatusCode::kInternal, 1},
                                                        {absl::StatusCode::kUnknown, 1},
                                                        {absl::StatusCode::kUnimplemented, 1},
                                                        {absl::StatusCode::kInvalidArgument, 2},
                                                        {absl::StatusCode::kOutOfRange, 2},
                                                        {absl::StatusCode::kNotFound, 3},
                                                        {absl::StatusCode::kUnavailable, 4},
                                                        {absl::StatusCode::kDeadlineExceeded, 4},
                                                        {absl::StatusCode::kResourceExhausted, 4},
                                                        {absl::StatusCode::kFailedPrecondition, 7},
                                                        {absl::StatusCode::kAlreadyExists, 7},
                                                        {absl::StatusCode::kAborted, 7},
                                                        {absl::StatusCode::kDataLoss, 8}}) {
    EXPECT_EQ(static_cast<int>(exit_code(absl::Status(expected.code, "x"))), expected.exit)
        << absl::StatusCodeToString(expected.code);
  }
  EXPECT_EQ(static_cast<int>(exit_code(v1::JOB_STATE_SUCCEEDED)), 0);
  EXPECT_EQ(static_cast<int>(exit_code(v1::JOB_STATE_FAILED)), 5);
  EXPECT_EQ(static_cast<int>(exit_code(v1::JOB_STATE_CANCELLED)), 6);
  EXPECT_EQ(static_cast<int>(exit_code(v1::JOB_STATE_RUNNING)), 0);
}

TEST(ExitCodes, AreAllExplainedInTheHelp) {
  for (int code = 0; code <= 8; ++code) {
    EXPECT_THAT(exit_code_help(), HasSubstr(absl::StrCat(" ", code, " ")));
  }
}

}  // namespace
}  // namespace qaas::cli
