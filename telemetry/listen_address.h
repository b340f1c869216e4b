#pragma once

#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

namespace qaas {

/// Where a program listens, from text such as "127.0.0.1:50051", "localhost:50051", "[::1]:50051".
struct ListenAddress {
  std::string host;  ///< as given, without brackets
  int port = 0;      ///< 0: the system chooses one
  /// True if only programs on this machine can reach it: 127.0.0.0/8, ::1 or "localhost".
  bool loopback = false;

  /// "host:port", an IPv6 host in brackets.
  std::string text() const;
};

/// kInvalidArgument says what was found and what is accepted. The host is required: an empty one
/// would mean every interface, which must be written out ("0.0.0.0", "[::]").
absl::StatusOr<ListenAddress> parse_listen_address(const std::string& text);

/// OK for a loopback address; else kInvalidArgument that names `flag`: the programs have neither
/// TLS nor authentication, so nothing beyond this machine may reach them.
absl::Status require_loopback(const std::string& flag, const ListenAddress& address);

/// OK if a program could listen on `address` now; else the system's reason, worded for the person
/// who chose the address (kFailedPrecondition: taken; kInvalidArgument: not an address of this
/// machine). Only a probe: the port may be gone a moment later.
absl::Status probe_listen_address(const ListenAddress& address);

}  // namespace qaas
