#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include <absl/status/status.h>
#include <prometheus/gauge.h>

namespace qaas {

/// Someone who follows one job's events and reads them from the store when told that there may be
/// more. All calls come from the hub's threads or from notify()'s caller.
class EventSubscriber {
 public:
  virtual ~EventSubscriber() = default;
  virtual const std::string& job_id() const = 0;
  /// There may be new events: ask the hub for a load(), unless one is under way. Must not block.
  virtual void wake() = 0;
  /// Reads from the store; may block. Once per EventHub::request_load.
  virtual void load() = 0;
  /// The server is going away: end with a reason that lets the caller resume elsewhere.
  virtual void stop() = 0;
};

struct EventHubOptions {
  /// Threads that run load(); each uses one database connection while it does.
  int threads = 2;
  /// Subscribers at most.
  int max_subscribers = 1000;
  /// Every subscriber is woken this often even without a notification: notifications are lost when
  /// the listening connection breaks.
  std::chrono::milliseconds poll_interval{3000};
};

/// Tells the watchers of a job that it has new events, and lends them a few shared threads to read
/// them: a watcher costs memory, never a thread. A watcher is in the queue of loads at most once,
/// so the queue is bounded by the number of watchers. Thread-safe.
class EventHub {
 public:
  /// `subscribers` is kept at the number of subscribers.
  EventHub(EventHubOptions options, prometheus::Gauge& subscribers);
  /// All subscribers must be removed before.
  ~EventHub();
  EventHub(const EventHub&) = delete;
  EventHub& operator=(const EventHub&) = delete;

  /// kResourceExhausted when there are too many, kUnavailable after stop().
  absl::Status add(std::shared_ptr<EventSubscriber> subscriber);
  void remove(const EventSubscriber& subscriber);

  /// Runs subscriber->load() on one of the hub's threads. A subscriber asks again only after its
  /// load() began.
  void request_load(std::shared_ptr<EventSubscriber> subscriber);

  /// `job_id` has new events.
  void notify(const std::string& job_id);
  /// Notifications may have been lost: wakes everyone.
  void notify_all();

  /// Stops every subscriber and admits no more; loads still run.
  void stop();

 private:
  void run();
  std::vector<std::shared_ptr<EventSubscriber>> everyone();

  const EventHubOptions options_;
  prometheus::Gauge& gauge_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::unordered_multimap<std::string, std::shared_ptr<EventSubscriber>> subscribers_;
  std::deque<std::shared_ptr<EventSubscriber>> loads_;
  std::chrono::steady_clock::time_point next_poll_;
  bool stopped_ = false;     // admits no more
  bool destroying_ = false;  // threads end
  std::vector<std::thread> threads_;
};

}  // namespace qaas
