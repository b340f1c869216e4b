#include <algorithm>
#include <chrono>
#include <ctime>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include "clients/cli/commands.h"
#include "clients/cli/job_text.h"
#include "clients/cli/names.h"
#include "clients/cli/queries.h"
#include "clients/cli/text.h"

namespace qaas::cli {
namespace {

/// A stream is opened anew this often, so that a connection that died without a word is noticed.
constexpr std::chrono::minutes kStreamLife{5};
/// Waits without an answer before a watch that has begun gives up: about two minutes.
constexpr int kMostWaits = 27;

bool is_settled(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

std::string clock_time(const google::protobuf::Timestamp& time) {
  const std::time_t seconds = time.seconds();
  std::tm local{};
  localtime_r(&seconds, &local);
  return absl::StrFormat("%02d:%02d:%02d", local.tm_hour, local.tm_min, local.tm_sec);
}

/// Shows events: on a terminal, lines above one progress bar that is drawn over; elsewhere lines
/// only, and progress at most every ten seconds of the job's time.
class EventPrinter {
 public:
  explicit EventPrinter(Console& console) : console_(console) {}
  ~EventPrinter() { clear_bar(); }

  void print(const v1::JobEvent& event) {
    if (console_.json) {
      print_json_line(console_, event);
    } else if (event.has_progress()) {
      print_progress(event);
    } else {
      print_line(event, event_line(event));
    }
  }

  /// A remark that is no event, on the error stream.
  void remark(const std::string& text) {
    clear_bar();
    console_.err << text << "\n";
  }

  void clear_bar() {
    if (!bar_shown_) return;
    console_.out << "\r\x1b[K" << std::flush;
    bar_shown_ = false;
  }

 private:
  void print_line(const v1::JobEvent& event, const std::string& line) {
    if (line.empty()) return;
    clear_bar();
    console_.out << clock_time(event.time()) << "  " << line << std::endl;
  }

  void print_progress(const v1::JobEvent& event) {
    if (console_.columns > 0) {
      const int bar_width = std::clamp(console_.columns / 4, 10, 40);
      console_.out << "\r" << fit(progress_line(event.progress(), bar_width), console_.columns - 1)
                   << "\x1b[K" << std::flush;
      bar_shown_ = true;
      return;
    }
    constexpr int64_t kSecondsBetween = 10;
    if (event.time().seconds() - last_progress_ < kSecondsBetween) return;
    last_progress_ = event.time().seconds();
    print_line(event, progress_line(event.progress(), 0));
  }

  Console& console_;
  bool bar_shown_ = false;
  int64_t last_progress_ = 0;
};

/// One stream of events after `last_event`, which follows what was printed.
absl::Status stream_events(Connection& connection, const std::string& job, EventPrinter& printer,
                           int64_t& last_event) {
  v1::WatchJobRequest request;
  request.set_name(job);
  request.set_after_event(last_event);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kStreamLife);
  const auto reader = connection.jobs().WatchJob(&context, request);
  v1::WatchJobResponse response;
  while (reader->Read(&response)) {
    if (response.event().number() <= last_event) continue;
    last_event = response.event().number();
    printer.print(response.event());
  }
  return from_grpc(reader->Finish());
}

absl::StatusOr<v1::Job> watch_until_settled(Connection& connection, const std::string& name,
                                            EventPrinter& printer, int64_t last_event) {
  Backoff backoff;
  bool answered = false;
  while (true) {
    const int64_t before = last_event;
    absl::Status status = stream_events(connection, name, printer, last_event);
    if (last_event > before) backoff.reset();
    if (status.ok()) {
      absl::StatusOr<v1::Job> job = fetch_job(connection, name);
      if (job.ok() && is_settled(job->state())) return job;
      status = job.status();
    }
    answered = answered || status.ok() || last_event > before || absl::IsDeadlineExceeded(status);
    const bool resumable = status.ok() || absl::IsUnavailable(status) ||
                           absl::IsDeadlineExceeded(status) || absl::IsResourceExhausted(status);
    if (!resumable || !answered) return connection.explain(status);
    if (absl::IsUnavailable(status) && last_event > before) {
      printer.remark(absl::StrCat("connection lost after event ", last_event, "; resuming"));
    }
    if (absl::IsDeadlineExceeded(status)) continue;
    if (!backoff.wait(kMostWaits)) {
      return status.ok() ? absl::UnavailableError("the server ends the watch without settling it")
                         : connection.explain(status);
    }
  }
}

}  // namespace

absl::StatusOr<ExitCode> watch_job(Console& console, Connection& connection, const std::string& job,
                                   int64_t after_event) {
  EventPrinter printer(console);
  const absl::StatusOr<v1::Job> settled =
      watch_until_settled(connection, with_collection("jobs", job), printer, after_event);
  printer.clear_bar();
  if (!settled.ok()) return settled.status();
  if (console.json) {
    print_json_line(console, *settled);
  } else {
    console.out << "\n" << job_text(*settled);
  }
  return exit_code(settled->state());
}

}  // namespace qaas::cli
