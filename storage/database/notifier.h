#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "storage/database/database.h"

namespace qaas {

/// Sends NOTIFY from a thread of its own, coalesced. PostgreSQL takes a database-wide lock while a
/// transaction that notified commits, so notices go neither into the transactions they tell about
/// nor out one by one: the first one leaves at once, those that follow within `interval` leave
/// together. Best effort: what cannot be sent is dropped, since listeners poll as well.
class Notifier {
 public:
  Notifier(Database& database, std::chrono::milliseconds interval);
  /// Sends what is pending, then stops.
  ~Notifier();
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  /// Returns at once. Equal notices that wait are sent as one. Thread-safe.
  void notify(const std::string& channel, const std::string& payload);

 private:
  using Notices = std::map<std::string, std::set<std::string>>;  // channel -> payloads

  void send_until_stopped();
  void send(const Notices& notices);

  Database& database_;
  const std::chrono::milliseconds interval_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Notices pending_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace qaas
