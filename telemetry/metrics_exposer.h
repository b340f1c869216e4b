#pragma once

#include <memory>
#include <string>

#include <absl/status/statusor.h>
#include <prometheus/exposer.h>
#include <prometheus/registry.h>

#include "telemetry/listen_address.h"

namespace qaas {

/// Serves a registry at http://host:port/metrics until destroyed. Two threads of its own, so a slow
/// scraper delays nobody but scrapers.
class MetricsExposer {
 public:
  /// Shares the registry. A taken port, or an address that is not this machine's, comes back as
  /// probe_listen_address words it.
  static absl::StatusOr<std::unique_ptr<MetricsExposer>> start(
      const ListenAddress& address, std::shared_ptr<prometheus::Registry> registry);

  /// The address listened on; the port is the real one where 0 was asked for.
  const ListenAddress& address() const { return address_; }

 private:
  MetricsExposer(ListenAddress address, std::unique_ptr<prometheus::Exposer> exposer,
                 std::shared_ptr<prometheus::Registry> registry);

  ListenAddress address_;
  std::shared_ptr<prometheus::Registry> registry_;  // the exposer keeps only a weak reference
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace qaas
