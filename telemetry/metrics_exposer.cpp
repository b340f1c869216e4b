#include "telemetry/metrics_exposer.h"

#include <exception>
#include <utility>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

namespace qaas {
namespace {

constexpr size_t kThreads = 2;

}  // namespace

MetricsExposer::MetricsExposer(ListenAddress address, std::unique_ptr<prometheus::Exposer> exposer,
                               std::shared_ptr<prometheus::Registry> registry)
    : address_(std::move(address)), registry_(std::move(registry)), exposer_(std::move(exposer)) {}

absl::StatusOr<std::unique_ptr<MetricsExposer>> MetricsExposer::start(
    const ListenAddress& address, std::shared_ptr<prometheus::Registry> registry) {
  std::unique_ptr<prometheus::Exposer> exposer;
  // prometheus-cpp reports a failed start by exception only, and without the cause; this is the one
  // place that turns it into a Status.
  try {
    exposer = std::make_unique<prometheus::Exposer>(address.text(), kThreads);
  } catch (const std::exception& error) {
    const absl::Status cause = probe_listen_address(address);
    if (!cause.ok()) return cause;
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics on ", address.text(), ": ", error.what()));
  }
  exposer->RegisterCollectable(registry, "/metrics");
  ListenAddress bound = address;
  bound.port = exposer->GetListeningPorts().front();
  return std::unique_ptr<MetricsExposer>(
      new MetricsExposer(std::move(bound), std::move(exposer), std::move(registry)));
}

}  // namespace qaas
