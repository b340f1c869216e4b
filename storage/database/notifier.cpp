#include "storage/database/notifier.h"

#include <utility>
#include <vector>

#include "storage/database/job_row.h"
#include "storage/database/statements.h"

namespace qaas {
namespace {

// With the database away, what waits is bounded; the listeners' polls cover the rest.
constexpr size_t kMostPayloads = 1000;

}  // namespace

Notifier::Notifier(Database& database, std::chrono::milliseconds interval)
    : database_(database), interval_(interval), thread_([this] { send_until_stopped(); }) {}

Notifier::~Notifier() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Notifier::notify(const std::string& channel, const std::string& payload) {
  {
    const std::lock_guard lock(mutex_);
    std::set<std::string>& payloads = pending_[channel];
    if (payloads.size() < kMostPayloads) payloads.insert(payload);
  }
  changed_.notify_one();
}

void Notifier::send_until_stopped() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !pending_.empty(); });
    if (pending_.empty()) return;
    const Notices notices = std::exchange(pending_, {});
    lock.unlock();
    send(notices);
    lock.lock();
    changed_.wait_for(lock, interval_, [&] { return stopping_; });
  }
}

void Notifier::send(const Notices& notices) {
  database_
      .transact([&](pqxx::work& work) {
        for (const auto& [channel, payloads] : notices) {
          run(work, kNotify, channel,
              to_array(std::vector<std::string>(payloads.begin(), payloads.end())));
        }
        return absl::OkStatus();
      })
      .IgnoreError();
}

}  // namespace qaas
