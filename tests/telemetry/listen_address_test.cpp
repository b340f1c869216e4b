#include "telemetry/listen_address.h"

#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using ::qaas::testing::StatusIs;
using ::testing::HasSubstr;

TEST(ListenAddress, ReadsHostAndPort) {
  for (const char* text : {"127.0.0.1:50051", "localhost:1", "[::1]:65535", "0.0.0.0:0"}) {
    QAAS_ASSERT_OK_AND_ASSIGN(const ListenAddress address, parse_listen_address(text));
    EXPECT_EQ(address.text(), text);
  }
}

TEST(ListenAddress, OnlyThisMachineCountsAsLoopback) {
  for (const char* text : {"127.0.0.1:1", "127.1.2.3:1", "localhost:1", "[::1]:1"}) {
    EXPECT_TRUE(parse_listen_address(text)->loopback) << text;
  }
  for (const char* text : {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", "127.evil.example:1",
                           "localhost.example:1", "[::ffff:10.0.0.1]:1"}) {
    EXPECT_FALSE(parse_listen_address(text)->loopback) << text;
  }
}

TEST(ListenAddress, RefusesWhatItCannotRead) {
  for (const char* text : {"", "50051", ":50051", "host", "host:", "host:x", "host:+1", "host:-1",
                           "host:65536", "::1:50051", "[::1:5", "[]:5"}) {
    EXPECT_THAT(parse_listen_address(text),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("host:port")))
        << text;
  }
}

TEST(ListenAddress, ProbeSaysThatAnAddressIsNotOurs) {
  // 192.0.2.0/24 is reserved for documentation: no machine has it.
  EXPECT_THAT(probe_listen_address(*parse_listen_address("192.0.2.1:0")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("192.0.2.1:0")));
  EXPECT_THAT(probe_listen_address(*parse_listen_address("127.0.0.1:0")), ::qaas::testing::IsOk());
}

}  // namespace
}  // namespace qaas
