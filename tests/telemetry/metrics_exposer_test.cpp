#include "telemetry/metrics_exposer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

#include "telemetry/build_info.h"
#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using ::qaas::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

// The answer to one HTTP/1.0 GET, headers included.
std::string get(int port, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
    EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
    char buffer[4096];
    for (ssize_t n = 0; (n = read(fd, buffer, sizeof buffer)) > 0;) answer.append(buffer, n);
  }
  close(fd);
  return answer;
}

TEST(MetricsExposer, ServesTheRegistryAtMetrics) {
  auto registry = std::make_shared<prometheus::Registry>();
  add_build_info(*registry, "qaas-server");
  QAAS_ASSERT_OK_AND_ASSIGN(const auto exposer,
                            MetricsExposer::start(*parse_listen_address("127.0.0.1:0"), registry));
  ASSERT_GT(exposer->address().port, 0);
  EXPECT_THAT(get(exposer->address().port, "/metrics"),
              AllOf(HasSubstr("200 OK"), HasSubstr("qaas_build_info{program=\"qaas-server\"")));
}

TEST(MetricsExposer, RefusesATakenPortByAStatus) {
  auto registry = std::make_shared<prometheus::Registry>();
  QAAS_ASSERT_OK_AND_ASSIGN(const auto first,
                            MetricsExposer::start(*parse_listen_address("127.0.0.1:0"), registry));
  EXPECT_THAT(MetricsExposer::start(first->address(), registry),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr(first->address().text()), HasSubstr("in use"))));
}

}  // namespace
}  // namespace qaas
