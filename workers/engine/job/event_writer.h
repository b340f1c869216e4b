#pragma once

#include <string>

#include <absl/status/status.h>

#include "qaas/v1/event.pb.h"

namespace qaas {

/// Tells the outside what a run is doing: to the worker as length-delimited v1::EngineEvent on an
/// inherited pipe, or to a person on stderr (a progress bar on a terminal, plain lines otherwise).
/// Not thread-safe.
class EventWriter {
 public:
  /// Writes messages to `fd`; the caller keeps it open.
  static EventWriter to_pipe(int fd);
  static EventWriter to_person();

  /// A broken pipe means the worker is gone: the event is dropped, since the process will be
  /// killed with its parent.
  void write(const v1::EngineEvent& event);

 private:
  EventWriter() = default;
  void write_to_pipe(const v1::EngineEvent& event) const;
  void write_to_person(const v1::EngineEvent& event);

  int fd_ = -1;
  bool terminal_ = false;
  bool bar_shown_ = false;
  double last_line_ = 0;  ///< fraction at the last plain progress line
};

/// "block training", "evaluating", ...
std::string phase_name(v1::Phase phase);

}  // namespace qaas
