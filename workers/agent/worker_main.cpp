// qaas-worker: parts list and signals. What it does is in agent.h.

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <exception>
#include <memory>
#include <pthread.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include <absl/strings/str_cat.h>
#include <prometheus/registry.h>

#include "storage/database/database.h"
#include "storage/database/listener.h"
#include "telemetry/build_info.h"
#include "telemetry/logging.h"
#include "telemetry/metrics_exposer.h"
#include "workers/agent/agent.h"
#include "workers/agent/housekeeping.h"
#include "workers/agent/worker_options.h"

namespace qaas {
namespace {

constexpr int kCannotStart = 1;
constexpr int kGaveUp = 1;
/// Beyond the graces a stop may take for the statement or file operation in progress.
constexpr std::chrono::seconds kStopMargin{30};

sigset_t stop_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  return set;
}

/// Ends the process without cleaning up. The engine dies with it.
[[noreturn]] void give_up(const std::string& reason) {
  log_error(reason);
  stop_logging();
  ::_exit(kGaveUp);
}

/// Turns the first stop signal into agent.stop(), and a second one, or a stop that takes longer
/// than it may, into the end of the process. From construction to destruction; the signals must be
/// blocked in every thread.
class StopSignals {
 public:
  StopSignals(Agent& agent, std::chrono::milliseconds longest_stop)
      : thread_([this, &agent, longest_stop] { watch(agent, longest_stop); }) {}

  ~StopSignals() {
    done_ = true;
    ::pthread_kill(thread_.native_handle(), SIGTERM);
    thread_.join();
  }

 private:
  void watch(Agent& agent, std::chrono::milliseconds longest_stop) {
    const sigset_t set = stop_signals();
    int signal = 0;
    ::sigwait(&set, &signal);
    if (done_) {
      return;
    }
    log_info("stopping: no more claims; the running job is checkpointed and given back");
    agent.stop();
    const timespec limit{.tv_sec = longest_stop.count() / 1000,
                         .tv_nsec = longest_stop.count() % 1000 * 1000000};
    int again;
    do {
      again = ::sigtimedwait(&set, nullptr, &limit);
    } while (again < 0 && errno == EINTR);
    if (!done_) {
      give_up(again < 0 ? "the stop takes too long: giving up" : "second signal: giving up");
    }
  }

  std::atomic<bool> done_{false};
  std::thread thread_;
};

absl::Status run_worker(const WorkerOptions& options) {
  const absl::Status paths = check_worker_paths(options);
  if (!paths.ok()) {
    return paths;
  }
  Database database({.dsn = options.dsn});
  const absl::Status schema = check_schema(database);
  if (!schema.ok()) {
    return schema;
  }
  const auto artifacts = open_local_artifact_store(options.artifacts);
  if (!artifacts.ok()) {
    return artifacts.status();
  }
  const auto scratch = ScratchFolder::open(options.scratch);
  if (!scratch.ok()) {
    return scratch.status();
  }
  const auto registry = std::make_shared<prometheus::Registry>();
  add_build_info(*registry, "qaas-worker");
  AgentMetrics metrics(registry);
  const auto exposer = MetricsExposer::start(options.metrics, registry);
  if (!exposer.ok()) {
    return exposer.status();
  }
  JobStore jobs(database, options.jobs);
  Agent agent({.jobs = jobs, .artifacts = **artifacts, .scratch = **scratch, .metrics = metrics},
              options.agent);
  const StopSignals signals(
      agent, options.agent.attempt.engine.stop_grace + options.agent.handover + kStopMargin);
  const Housekeeping housekeeping(database, jobs, **artifacts, metrics, options.housekeeping);
  const Listener listener(
      database, {kQueueChannel},
      {.on_notification = [&agent](const std::string&, const std::string&) { agent.wake(); },
       .on_connected = [&agent] { agent.wake(); },
       .on_disconnected =
           [](const absl::Status& why, std::chrono::milliseconds) {
             log_warning(absl::StrCat("no notices from the queue, polling: ", why.ToString()));
           }});
  log_info(absl::StrCat("qaas-worker ", build_version(), " '", options.agent.name,
                        "' is ready; metrics at http://", (*exposer)->address().text(),
                        "/metrics"));
  agent.run();
  log_info("stopped");
  return absl::OkStatus();
}

int main_of_worker(int argc, char** argv) {
  const sigset_t set = stop_signals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);  // a file size limit is an error of the write instead
  const WorkerCommandLine line = parse_worker_options(argc, argv);
  if (!line.run) {
    std::fputs(line.text.c_str(), line.exit_code == 0 ? stdout : stderr);
    return line.exit_code;
  }
  start_logging(line.options.logging);
  const absl::Status result = run_worker(line.options);
  if (!result.ok()) {
    log_error(absl::StrCat("cannot start: ", result.ToString()));
  }
  stop_logging();
  return result.ok() ? 0 : kCannotStart;
}

}  // namespace
}  // namespace qaas

int main(int argc, char** argv) {
  try {
    return qaas::main_of_worker(argc, argv);
  } catch (const std::exception& error) {
    qaas::log_error(absl::StrCat("unexpected: ", error.what()));
    qaas::stop_logging();
    return qaas::kCannotStart;
  }
}
