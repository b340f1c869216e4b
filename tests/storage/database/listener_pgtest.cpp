#include <algorithm>
#include <condition_variable>
#include <mutex>

#include <absl/strings/str_cat.h>

#include "storage/database/listener.h"
#include "storage/database/notifier.h"
#include "tests/storage/database/job_fixture.h"

namespace qaas {
namespace {

using namespace testing;  // NOLINT: the fixtures' namespace
using std::chrono::milliseconds;
using ::testing::ElementsAre;

constexpr std::chrono::seconds kDeadline{30};

// What a listener's callbacks saw, to be waited for.
class Inbox {
 public:
  Listener::Callbacks callbacks() {
    return {.on_notification =
                [this](const std::string& channel, const std::string& payload) {
                  const std::lock_guard lock(mutex_);
                  notices_.push_back(absl::StrCat(channel, " ", payload));
                  changed_.notify_all();
                },
            .on_connected =
                [this] {
                  const std::lock_guard lock(mutex_);
                  ++connections_;
                  changed_.notify_all();
                },
            .on_disconnected =
                [this](const absl::Status&, milliseconds) {
                  const std::lock_guard lock(mutex_);
                  ++failures_;
                  changed_.notify_all();
                }};
  }

  bool wait_for_connections(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kDeadline, [&] { return connections_ >= count; });
  }
  bool wait_for_failures(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kDeadline, [&] { return failures_ >= count; });
  }
  bool wait_for(const std::string& notice) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kDeadline, [&] {
      return std::find(notices_.begin(), notices_.end(), notice) != notices_.end();
    });
  }
  std::vector<std::string> notices() {
    const std::lock_guard lock(mutex_);
    return notices_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> notices_;
  int connections_ = 0;
  int failures_ = 0;
};

class ListenerTest : public JobStoreTest {
 protected:
  // Channels belong to the whole database: a name of this test's own.
  std::string channel() {
    return absl::StrCat("c", execute("SELECT current_schema()")[0][0].c_str());
  }
  void notify(const std::string& payload) {
    execute(absl::StrCat("SELECT pg_notify('", channel(), "', '", payload, "')"));
  }
};

TEST_F(ListenerTest, NotificationsArrive) {
  Inbox inbox;
  const Listener listener(database(), {channel()}, inbox.callbacks());
  ASSERT_TRUE(inbox.wait_for_connections(1));
  EXPECT_TRUE(listener.connected());
  notify("hello");
  EXPECT_TRUE(inbox.wait_for(absl::StrCat(channel(), " hello")));
}

TEST_F(ListenerTest, LostConnectionIsReplacedAndSaysSo) {
  const Database listening({.dsn = absl::StrCat(dsn(), " application_name=", channel())});
  Inbox inbox;
  const Listener listener(listening, {channel()}, inbox.callbacks());
  ASSERT_TRUE(inbox.wait_for_connections(1));
  execute(absl::StrCat("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity ",
                       "WHERE application_name = '", channel(), "'"));
  ASSERT_TRUE(inbox.wait_for_failures(1));
  ASSERT_TRUE(inbox.wait_for_connections(2));
  notify("again");
  EXPECT_TRUE(inbox.wait_for(absl::StrCat(channel(), " again")));
}

TEST_F(ListenerTest, StopsPromptlyWhileTheServerIsAway) {
  const Database away({.dsn = "host=/nonexistent user=u dbname=d"});
  Inbox inbox;
  std::chrono::steady_clock::time_point stopping;
  {
    const Listener listener(away, {"c"}, inbox.callbacks());
    ASSERT_TRUE(inbox.wait_for_failures(3));
    EXPECT_FALSE(listener.connected());
    stopping = std::chrono::steady_clock::now();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - stopping, milliseconds{300})
      << "it was waiting to try again";
}

TEST_F(ListenerTest, SubmitWakesWorkersAndEveryChangeWakesWatchers) {
  Inbox inbox;
  const Listener listener(database(), {kQueueChannel, kEventChannel}, inbox.callbacks());
  ASSERT_TRUE(inbox.wait_for_connections(1));
  const std::string id = submit();
  EXPECT_TRUE(inbox.wait_for(absl::StrCat("qaas_queue ", id)));
  EXPECT_TRUE(inbox.wait_for(absl::StrCat("qaas_events ", id)));
}

TEST_F(ListenerTest, NoticesThatWaitLeaveTogetherAndOnce) {
  Inbox inbox;
  const Listener listener(database(), {channel()}, inbox.callbacks());
  ASSERT_TRUE(inbox.wait_for_connections(1));
  const std::string name = channel();
  {
    Notifier notifier(database(), std::chrono::hours{1});
    notifier.notify(name, "first");
    ASSERT_TRUE(inbox.wait_for(absl::StrCat(name, " first"))) << "the first leaves at once";
    for (int i = 0; i < 100; ++i) notifier.notify(name, i % 2 == 0 ? "even" : "odd");
  }
  notify("last");
  ASSERT_TRUE(inbox.wait_for(absl::StrCat(name, " last")));
  EXPECT_THAT(inbox.notices(),
              ElementsAre(absl::StrCat(name, " first"), absl::StrCat(name, " even"),
                          absl::StrCat(name, " odd"), absl::StrCat(name, " last")));
}

}  // namespace
}  // namespace qaas
