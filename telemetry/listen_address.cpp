#include "telemetry/listen_address.h"

#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <netdb.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

namespace qaas {
namespace {

// A name such as "127.evil.example" is not an address: only parsed numbers count.
bool is_loopback(const std::string& host) {
  if (host == "localhost") return true;
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  in6_addr v6{};
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

absl::Status why_not(const ListenAddress& address, int error) {
  const std::string what =
      absl::StrCat("cannot listen on ", address.text(), ": ", std::strerror(error));
  if (error == EADDRINUSE) {
    return absl::FailedPreconditionError(
        absl::StrCat(what, "; another program listens there: stop it or choose another port"));
  }
  return absl::InvalidArgumentError(what);
}

}  // namespace

std::string ListenAddress::text() const {
  return host.find(':') == std::string::npos ? absl::StrCat(host, ":", port)
                                             : absl::StrCat("[", host, "]:", port);
}

absl::StatusOr<ListenAddress> parse_listen_address(const std::string& text) {
  const absl::Status refusal = absl::InvalidArgumentError(absl::StrCat(
      "address '", text, "': expected host:port such as 127.0.0.1:50051 or [::1]:50051"));
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return refusal;
  std::string host = text.substr(0, colon);
  if (host.front() == '[') {
    if (host.size() < 3 || host.back() != ']') return refusal;
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    return refusal;
  }
  ListenAddress address{.host = host};
  const std::string port = text.substr(colon + 1);
  if (port.find_first_not_of("0123456789") != std::string::npos ||
      !absl::SimpleAtoi(port, &address.port) || address.port > 65535) {
    return refusal;
  }
  address.loopback = is_loopback(host);
  return address;
}

absl::Status require_loopback(const std::string& flag, const ListenAddress& address) {
  if (address.loopback) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " ", address.text(),
                   ": only loopback addresses (127.0.0.1, [::1], localhost) are accepted, because "
                   "this version has neither TLS nor authentication; put a proxy that has both in "
                   "front, or use an SSH tunnel"));
}

absl::Status probe_listen_address(const ListenAddress& address) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (error != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot listen on ", address.text(), ": ", gai_strerror(error)));
  }
  absl::Status status = absl::OkStatus();
  const int fd = socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC, found->ai_protocol);
  if (fd < 0) {
    status = why_not(address, errno);
  } else {
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    // SO_REUSEADDR lets bind pass beside a listener's closed connections; listen then tells.
    if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 1) != 0) {
      status = why_not(address, errno);
    }
    close(fd);
  }
  freeaddrinfo(found);
  return status;
}

}  // namespace qaas
