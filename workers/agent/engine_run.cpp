#include "workers/agent/engine_run.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <poll.h>
#include <sys/eventfd.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "workers/agent/event_decoder.h"

namespace qaas {
namespace {

using Clock = AttemptControl::Clock;

constexpr size_t kReadBytes = 64 * 1024;
/// How long pipes are drained after the engine has ended. They reach their end at once, unless a
/// grandchild that left the process group holds them open.
constexpr std::chrono::seconds kDrainTime{5};
constexpr std::chrono::seconds kTick{1};

/// Reads `descriptor` until its end, until `stop` becomes readable, or until `take` returns false.
void drain(int descriptor, int stop, const std::function<bool(absl::string_view)>& take) {
  std::vector<char> buffer(kReadBytes);
  while (true) {
    pollfd waits[2] = {{descriptor, POLLIN, 0}, {stop, POLLIN, 0}};
    if (::poll(waits, 2, -1) < 0 && errno != EINTR) {
      return;
    }
    if (waits[0].revents == 0) {
      if (waits[1].revents != 0) {
        return;
      }
      continue;
    }
    const ssize_t count = ::read(descriptor, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0 || !take(absl::string_view(buffer.data(), static_cast<size_t>(count)))) {
      return;
    }
  }
}

/// Waits for the engine's end, carrying out what `control` asks for meanwhile.
void see_to_its_end(ChildProcess& engine, const EngineRunOptions& options, AttemptControl& control,
                    AgentMetrics& metrics) {
  bool cancelling = false;
  bool stopping = false;
  Clock::time_point kill_at = Clock::time_point::max();
  while (true) {
    const auto signals = control.wait_until(
        std::min(Clock::now() + kTick, kill_at), [&](const AttemptControl::Signals& now) {
          return now.engine_ended || (now.cancel && !cancelling) || (now.shutdown && !stopping);
        });
    metrics.tick();
    if (signals.engine_ended) {
      return;
    }
    if (signals.cancel && !cancelling) {
      cancelling = true;
      engine.signal_group(SIGTERM);
      kill_at = std::min(kill_at, Clock::now() + options.cancel_grace);
    }
    if (signals.shutdown && !stopping) {
      stopping = true;
      engine.signal_group(SIGTERM);
      kill_at = std::min(kill_at, Clock::now() + options.stop_grace);
    }
    if (Clock::now() >= kill_at) {
      engine.signal_group(SIGKILL);
      kill_at = Clock::time_point::max();
    }
  }
}

}  // namespace

EngineEnding run_engine(ChildProcess& engine, const EngineRunOptions& options,
                        AttemptControl& control, AgentMetrics& metrics,
                        const std::function<void(const v1::EngineEvent&)>& on_event,
                        const std::function<void(const std::string&)>& on_line) {
  EngineEnding ending;
  EventDecoder decoder;
  EngineLog log(options.log, on_line);
  const FileDescriptor stop(::eventfd(0, EFD_CLOEXEC));
  control.set_engine(&engine);

  std::thread event_reader([&] {
    drain(engine.events(), stop.get(), [&](absl::string_view bytes) {
      ending.stream = decoder.feed(bytes, [&](const v1::EngineEvent& event) {
        if (event.has_failure()) {
          ending.reported = event.failure();
        } else if (event.has_progress()) {
          ending.position = position_of(event.progress());
        }
        ending.artifact_written = ending.artifact_written || event.has_artifact_written();
        ending.evaluated = ending.evaluated || event.has_evaluation();
        on_event(event);
      });
      if (!ending.stream.ok()) {
        engine.signal_group(SIGKILL);
      }
      return ending.stream.ok();
    });
  });
  std::thread output_reader([&] {
    drain(engine.output(), stop.get(), [&](absl::string_view bytes) {
      log.feed(bytes, Clock::now());
      return true;
    });
    log.finish();
  });
  std::thread waiter([&] {
    ending.process = engine.wait();
    control.engine_ended();
  });

  see_to_its_end(engine, options, control, metrics);
  waiter.join();
  control.set_engine(nullptr);
  std::thread drain_limit([&] {
    // Ends early when both readers are done: they are told through `stop` as well.
    pollfd done{stop.get(), POLLIN, 0};
    const int limit =
        static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(kDrainTime).count());
    if (::poll(&done, 1, limit) == 0) {
      ::eventfd_write(stop.get(), 1);
    }
  });
  event_reader.join();
  output_reader.join();
  ::eventfd_write(stop.get(), 1);
  drain_limit.join();

  if (ending.stream.ok() && ending.process.signal == 0) {
    ending.stream = decoder.finish();
  }
  ending.last_line = log.last_line();
  return ending;
}

}  // namespace qaas
