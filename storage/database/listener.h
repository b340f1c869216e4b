#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <absl/status/status.h>

#include "storage/database/database.h"

namespace qaas {

/// LISTEN on some channels, with a connection and a thread of its own. When the connection is lost
/// it connects again, waiting a little longer after each failure. What was notified meanwhile is
/// lost: users act on `on_connected` as if everything had been notified, and poll as well.
class Listener {
 public:
  /// Called on the listener's thread; must be quick and must not throw.
  struct Callbacks {
    std::function<void(const std::string& channel, const std::string& payload)> on_notification;
    /// Listening has begun, for the first time or again: look for what was missed.
    std::function<void()> on_connected = [] {};
    /// The connection was lost or could not be made; `retry_in` until the next try.
    std::function<void(const absl::Status& why, std::chrono::milliseconds retry_in)>
        on_disconnected = [](const absl::Status&, std::chrono::milliseconds) {};
  };

  /// Starts at once. `database` must outlive this object; its pool is not used.
  Listener(const Database& database, std::vector<std::string> channels, Callbacks callbacks);

  /// Stops promptly; only a connection attempt under way is waited for (connect_timeout). No
  /// callback runs after that.
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  /// Whether notifications are arriving at the moment. Thread-safe.
  bool connected() const { return connected_; }

 private:
  void listen_until_stopped();
  absl::Status listen_on(pqxx::connection& connection);
  bool stopped_within(std::chrono::milliseconds time) const;

  const Database& database_;
  const std::vector<std::string> channels_;
  const Callbacks callbacks_;
  const int stop_event_;  ///< eventfd, readable once the destructor has begun
  std::atomic<bool> connected_ = false;
  std::thread thread_;
};

}  // namespace qaas
