#include "server/errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace qaas {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

google::rpc::Status wire(const grpc::Status& status) {
  google::rpc::Status parsed;
  EXPECT_TRUE(parsed.ParseFromString(status.error_details()));
  return parsed;
}

google::rpc::ErrorInfo error_info(const grpc::Status& status) {
  google::rpc::ErrorInfo found;
  const google::rpc::Status sent = wire(status);
  for (const auto& detail : sent.details()) detail.UnpackTo(&found);
  return found;
}

TEST(Errors, EveryCodeKeepsItsMeaningAndCarriesAReason) {
  for (int code = 1; code <= 16; ++code) {
    const grpc::Status status =
        to_grpc_status(absl::Status(static_cast<absl::StatusCode>(code), "why"));
    // Of storage, whose permissions are the service's own.
    const int expected = code == grpc::PERMISSION_DENIED ? grpc::INTERNAL : code;
    EXPECT_EQ(static_cast<int>(status.error_code()), expected);
    EXPECT_EQ(wire(status).code(), expected);
    bool has_reason = false;
    const google::rpc::Status sent = wire(status);
    for (const auto& detail : sent.details()) {
      google::rpc::ErrorInfo info;
      if (!detail.UnpackTo(&info)) continue;
      has_reason = true;
      EXPECT_EQ(info.domain(), "qaas");
      EXPECT_FALSE(info.reason().empty());
      EXPECT_EQ(info.reason().find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ_"), std::string::npos);
    }
    EXPECT_TRUE(has_reason) << code;
  }
  EXPECT_TRUE(to_grpc_status(absl::OkStatus()).ok());
}

TEST(Errors, TextOfStorageStaysInTheLog) {
  for (const absl::StatusCode code :
       {absl::StatusCode::kInternal, absl::StatusCode::kUnknown, absl::StatusCode::kUnavailable,
        absl::StatusCode::kResourceExhausted, absl::StatusCode::kInvalidArgument,
        absl::StatusCode::kPermissionDenied, absl::StatusCode::kDataLoss}) {
    SCOPED_TRACE(absl::StatusCodeToString(code));
    ::testing::internal::CaptureStderr();
    const grpc::Status status = to_grpc_status(absl::Status(code, "role 'secret' at 10.0.0.7"));
    const std::string logged = ::testing::internal::GetCapturedStderr();
    EXPECT_THAT(status.error_message(), Not(HasSubstr("secret")));
    EXPECT_THAT(status.error_details(), Not(HasSubstr("secret")));
    EXPECT_THAT(logged, HasSubstr("role 'secret' at 10.0.0.7"));
    const std::string id = error_info(status).metadata().at("request_id");
    EXPECT_THAT(logged, HasSubstr(id));
    EXPECT_THAT(status.error_message(), HasSubstr(id));
  }
}

TEST(Errors, WhatTheServerWordedIsSentAsItIs) {
  const grpc::Status status = to_grpc_status(server_busy("TOO_MANY_WATCHERS", "at most 3"));
  EXPECT_EQ(status.error_message(), "at most 3");
  EXPECT_EQ(error_info(status).reason(), "TOO_MANY_WATCHERS");
}

TEST(Errors, EachDetailAppearsOnce) {
  const grpc::Status status = to_grpc_status(
      retry_after(invalid_field("a.b", "found 1; expected 2"), std::chrono::milliseconds(1500)));
  ASSERT_EQ(wire(status).details_size(), 3);
  google::rpc::BadRequest bad;
  google::rpc::RetryInfo retry;
  EXPECT_TRUE(wire(status).details(1).UnpackTo(&bad));
  EXPECT_TRUE(wire(status).details(2).UnpackTo(&retry));
  EXPECT_EQ(bad.field_violations(0).field(), "a.b");
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 500000000);
  EXPECT_EQ(status.error_message(), "a.b: found 1; expected 2");
}

TEST(Errors, TrailersStayBelowWhatClientsAccept) {
  std::vector<FieldViolation> many(
      200, {.field = std::string(500, 'f'), .description = std::string(500, 'd')});
  const grpc::Status status = to_grpc_status(invalid_fields(many));
  // 8 KiB for all trailers; details travel as base64.
  EXPECT_LT(status.error_message().size() + status.error_details().size() * 4 / 3, 7500U);
  EXPECT_THAT(status.error_details(), HasSubstr("ffff"));
}

}  // namespace
}  // namespace qaas
