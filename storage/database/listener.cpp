#include "storage/database/listener.h"

#include <algorithm>
#include <memory>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>

namespace qaas {
namespace {

constexpr std::chrono::milliseconds kFirstRetry{100};
constexpr std::chrono::milliseconds kLongestRetry{5000};

class Receiver : public pqxx::notification_receiver {
 public:
  Receiver(pqxx::connection& connection, const std::string& channel,
           const Listener::Callbacks& callbacks)
      : notification_receiver(connection, channel), callbacks_(callbacks) {}

  void operator()(const std::string& payload, int) override {
    callbacks_.on_notification(channel(), payload);
  }

 private:
  const Listener::Callbacks& callbacks_;
};

}  // namespace

Listener::Listener(const Database& database, std::vector<std::string> channels, Callbacks callbacks)
    : database_(database),
      channels_(std::move(channels)),
      callbacks_(std::move(callbacks)),
      stop_event_(eventfd(0, EFD_CLOEXEC)),
      thread_([this] { listen_until_stopped(); }) {}

Listener::~Listener() {
  eventfd_write(stop_event_, 1);
  thread_.join();
  close(stop_event_);
}

bool Listener::stopped_within(std::chrono::milliseconds time) const {
  pollfd stop{stop_event_, POLLIN, 0};
  return poll(&stop, 1, static_cast<int>(time.count())) > 0;
}

void Listener::listen_until_stopped() {
  std::chrono::milliseconds retry_in = kFirstRetry;
  while (!stopped_within(std::chrono::milliseconds{0})) {
    auto connection = database_.open_listener();
    absl::Status status = connection.status();
    if (status.ok()) {
      status = catch_database_errors([&] { return listen_on(**connection); });
      if (connected_.exchange(false)) retry_in = kFirstRetry;
    }
    if (status.ok()) return;
    callbacks_.on_disconnected(status, retry_in);
    if (stopped_within(retry_in)) return;
    retry_in = std::min(retry_in * 2, kLongestRetry);
  }
}

// Returns OK once the listener is to stop.
absl::Status Listener::listen_on(pqxx::connection& connection) {
  std::vector<std::unique_ptr<Receiver>> receivers;
  for (const std::string& channel : channels_) {
    receivers.push_back(std::make_unique<Receiver>(connection, channel, callbacks_));
  }
  connected_ = true;
  callbacks_.on_connected();
  while (true) {
    // First what has arrived already: it need not make the socket readable again.
    connection.get_notifs();
    if (!connection.is_open()) return absl::UnavailableError("database: connection lost");
    pollfd ready[] = {{stop_event_, POLLIN, 0}, {connection.sock(), POLLIN, 0}};
    poll(ready, 2, -1);
    if (ready[0].revents != 0) return absl::OkStatus();
  }
}

}  // namespace qaas
