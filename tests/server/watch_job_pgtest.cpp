// WatchJob: past events, live events, the end, resuming, and that a watcher costs no thread.
#include <filesystem>
#include <iterator>
#include <thread>

#include "tests/server/server_fixture.h"

namespace qaas::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

int64_t thread_count() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), {});
}

class WatchJobTest : public ServerTest {
 protected:
  // A stream and what it needs to live.
  struct Watch {
    std::unique_ptr<grpc::ClientContext> context = call_context();
    std::unique_ptr<grpc::ClientReader<v1::WatchJobResponse>> reader;

    v1::JobEvent next() {
      v1::WatchJobResponse response;
      EXPECT_TRUE(reader->Read(&response)) << "the stream ended";
      return response.event();
    }
    // Numbers of the events up to the end, and how the stream ended.
    grpc::Status rest(std::vector<int64_t>& numbers) {
      v1::WatchJobResponse response;
      while (reader->Read(&response)) numbers.push_back(response.event().number());
      return reader->Finish();
    }
  };

  Watch watch(const std::string& name, int64_t after = 0) {
    v1::WatchJobRequest request;
    request.set_name(name);
    request.set_after_event(after);
    Watch watch;
    watch.reader = jobs().WatchJob(watch.context.get(), request);
    return watch;
  }

  void append_warnings(const Lease& lease, int count) {
    v1::JobEvent event;
    event.mutable_warning()->set_message("w");
    ASSERT_THAT(store().append_events(lease, std::vector<v1::JobEvent>(count, event)), IsOk());
  }
};

TEST_F(WatchJobTest, SendsPastThenLiveEventsAndEndsWithTheJob) {
  const std::string name = submit();
  Watch stream = watch(name);
  EXPECT_EQ(stream.next().state_changed().state(), v1::JOB_STATE_QUEUED);
  const Lease lease = claim(name);
  EXPECT_EQ(stream.next().state_changed().state(), v1::JOB_STATE_RUNNING);
  append_warnings(lease, 1);
  EXPECT_TRUE(stream.next().has_warning());
  ASSERT_THAT(store().settle_succeeded(lease, {}, v1::Evaluation()), IsOk());
  std::vector<int64_t> numbers;
  EXPECT_TRUE(stream.rest(numbers).ok());
  ASSERT_FALSE(numbers.empty());
  EXPECT_EQ(numbers.front(), 4);
  EXPECT_EQ(numbers.back(), get(name).last_event());
}

TEST_F(WatchJobTest, NotificationsBringEventsLongBeforeThePoll) {
  ServerOptions slow_poll = options();
  slow_poll.watch_poll_interval = std::chrono::hours(1);
  restart(slow_poll);
  const std::string name = submit();
  Watch stream = watch(name);
  EXPECT_EQ(stream.next().number(), 1);
  const Lease lease = claim(name);
  EXPECT_EQ(stream.next().number(), 2);
  append_warnings(lease, 1);
  EXPECT_EQ(stream.next().number(), 3);
}

TEST_F(WatchJobTest, PollBringsEventsThatNobodyNotifiedOf) {
  ServerOptions fast_poll = options();
  fast_poll.watch_poll_interval = std::chrono::milliseconds(50);
  restart(fast_poll);
  const std::string name = submit();
  claim(name);
  Watch stream = watch(name, 1);
  EXPECT_EQ(stream.next().number(), 2);
  // Written past the store, so nobody is notified.
  execute(
      "INSERT INTO job_event (job, number, attempt, time, payload) "
      "SELECT id, 3, 1, clock_timestamp(), '' FROM job");
  execute("UPDATE job SET last_event = 3");
  EXPECT_EQ(stream.next().number(), 3);
}

TEST_F(WatchJobTest, ResumesAfterAnyEventAcrossBatches) {
  const std::string name = submit();
  const Lease lease = claim(name);
  append_warnings(lease, 200);
  ASSERT_THAT(store().settle_succeeded(lease, {}, v1::Evaluation()), IsOk());
  const int64_t last = get(name).last_event();
  for (const int64_t after : {int64_t{0}, int64_t{1}, int64_t{63}, int64_t{64}, last - 1, last}) {
    std::vector<int64_t> numbers;
    EXPECT_TRUE(watch(name, after).rest(numbers).ok());
    std::vector<int64_t> expected;
    for (int64_t number = after + 1; number <= last; ++number) expected.push_back(number);
    EXPECT_EQ(numbers, expected) << "after " << after;
  }
}

TEST_F(WatchJobTest, RefusesWhatItCannotWatch) {
  std::vector<int64_t> numbers;
  EXPECT_THAT(watch("jobs/0b1c7f3e-5d0a-4c57-9a3e-2f6f0e3b8f11").rest(numbers),
              IsRefusal(grpc::StatusCode::NOT_FOUND, "JOB_NOT_FOUND"));
  EXPECT_THAT(violated_fields(watch("models/tiny").rest(numbers)), ElementsAre("name"));
  EXPECT_THAT(violated_fields(watch(submit(), -1).rest(numbers)), ElementsAre("after_event"));
  EXPECT_THAT(numbers, SizeIs(0));
}

TEST_F(WatchJobTest, WatchersBeyondTheLimitAreTurnedAway) {
  ServerOptions one = options();
  one.max_watchers = 1;
  restart(one);
  const std::string name = submit();
  Watch first = watch(name);
  EXPECT_EQ(first.next().number(), 1);
  std::vector<int64_t> numbers;
  EXPECT_THAT(watch(name).rest(numbers),
              IsRefusal(grpc::StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS"));
  first.context->TryCancel();
  EXPECT_EQ(first.rest(numbers).error_code(), grpc::StatusCode::CANCELLED);
  wait_until(
      [&] {
        Watch again = watch(name);
        v1::WatchJobResponse response;
        return again.reader->Read(&response);
      },
      "the place of a watcher that went away is free again");
}

TEST_F(WatchJobTest, TwoHundredWatchersCostNoThreadEachAndAllSeeTheEnd) {
  const std::string name = submit();
  std::vector<Watch> watches;
  watches.push_back(watch(name));
  EXPECT_EQ(watches.back().next().number(), 1);
  const int64_t threads = thread_count();
  while (watches.size() < 200) {
    watches.push_back(watch(name));
    EXPECT_EQ(watches.back().next().number(), 1);
  }
  EXPECT_LT(thread_count(), threads + 20);
  ASSERT_THAT(store().settle_succeeded(claim(name), {}, v1::Evaluation()), IsOk());
  const int64_t last = get(name).last_event();
  for (Watch& stream : watches) {
    std::vector<int64_t> numbers;
    EXPECT_TRUE(stream.rest(numbers).ok());
    ASSERT_FALSE(numbers.empty());
    EXPECT_EQ(numbers.back(), last);
  }
}

TEST_F(WatchJobTest, ShutdownTellsWatchersToResumeElsewhere) {
  const std::string name = submit();
  Watch stream = watch(name);
  EXPECT_EQ(stream.next().number(), 1);
  std::thread stopping([this] { server().shutdown(std::chrono::seconds(30)); });
  std::vector<int64_t> numbers;
  EXPECT_THAT(stream.rest(numbers), IsRefusal(grpc::StatusCode::UNAVAILABLE, "SHUTTING_DOWN"));
  stopping.join();
  restart(options());
  Watch resumed = watch(name, 1);
  claim(name);
  EXPECT_EQ(resumed.next().number(), 2);
}

}  // namespace
}  // namespace qaas::testing
