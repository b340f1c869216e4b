#include "server/event_hub.h"

#include <utility>

#include <absl/strings/str_cat.h>

#include "server/errors.h"

namespace qaas {

EventHub::EventHub(EventHubOptions options, prometheus::Gauge& subscribers)
    : options_(options),
      gauge_(subscribers),
      next_poll_(std::chrono::steady_clock::now() + options.poll_interval) {
  for (int i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { run(); });
}

EventHub::~EventHub() {
  {
    const std::lock_guard lock(mutex_);
    destroying_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

absl::Status EventHub::add(std::shared_ptr<EventSubscriber> subscriber) {
  const std::lock_guard lock(mutex_);
  if (stopped_) {
    return refusal(absl::StatusCode::kUnavailable, "SHUTTING_DOWN", "the server is shutting down");
  }
  if (static_cast<int>(subscribers_.size()) >= options_.max_subscribers) {
    return server_busy("TOO_MANY_WATCHERS",
                       absl::StrCat("the server follows at most ", options_.max_subscribers,
                                    " WatchJob streams; try again later"));
  }
  const std::string job_id = subscriber->job_id();
  subscribers_.emplace(job_id, std::move(subscriber));
  gauge_.Set(static_cast<double>(subscribers_.size()));
  return absl::OkStatus();
}

void EventHub::remove(const EventSubscriber& subscriber) {
  std::shared_ptr<EventSubscriber> removed;  // released outside the lock
  const std::lock_guard lock(mutex_);
  const auto [first, last] = subscribers_.equal_range(subscriber.job_id());
  for (auto it = first; it != last; ++it) {
    if (it->second.get() == &subscriber) {
      removed = std::move(it->second);
      subscribers_.erase(it);
      break;
    }
  }
  gauge_.Set(static_cast<double>(subscribers_.size()));
}

void EventHub::request_load(std::shared_ptr<EventSubscriber> subscriber) {
  {
    const std::lock_guard lock(mutex_);
    loads_.push_back(std::move(subscriber));
  }
  wake_.notify_one();
}

void EventHub::notify(const std::string& job_id) {
  std::vector<std::shared_ptr<EventSubscriber>> woken;
  {
    const std::lock_guard lock(mutex_);
    const auto [first, last] = subscribers_.equal_range(job_id);
    for (auto it = first; it != last; ++it) woken.push_back(it->second);
  }
  for (const auto& subscriber : woken) subscriber->wake();
}

void EventHub::notify_all() {
  for (const auto& subscriber : everyone()) subscriber->wake();
}

void EventHub::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  for (const auto& subscriber : everyone()) subscriber->stop();
}

std::vector<std::shared_ptr<EventSubscriber>> EventHub::everyone() {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<EventSubscriber>> all;
  all.reserve(subscribers_.size());
  for (const auto& [job_id, subscriber] : subscribers_) all.push_back(subscriber);
  return all;
}

void EventHub::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    const auto until = next_poll_;
    wake_.wait_until(lock, until, [this] { return destroying_ || !loads_.empty(); });
    if (destroying_) return;
    // One thread takes the poll; the others see the next one.
    const auto now = std::chrono::steady_clock::now();
    const bool poll = now >= next_poll_;
    if (poll) next_poll_ = now + options_.poll_interval;
    std::shared_ptr<EventSubscriber> subscriber;
    if (!loads_.empty()) {
      subscriber = std::move(loads_.front());
      loads_.pop_front();
    }
    lock.unlock();
    if (poll) notify_all();
    if (subscriber) subscriber->load();
    subscriber.reset();
    lock.lock();
  }
}

}  // namespace qaas
