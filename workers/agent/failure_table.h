#pragma once

#include <optional>
#include <string>

#include <absl/status/status.h>

#include "qaas/v1/event.pb.h"

namespace qaas {

/// How a process ended: by exiting or by a signal.
struct ProcessEnd {
  int exit_code = 0;  ///< of a process that exited
  int signal = 0;     ///< 0: it exited
};

/// Exit codes of qaas-engine, fixed for good: worker and engine may be of different builds.
enum EngineExit : int {
  kEngineSucceeded = 0,
  kEngineInternal = 1,
  kEngineCaller = 2,
  kEngineResource = 3,
  kEngineStopped = 75,  ///< asked to stop; a checkpoint is written
};

/// All a worker knows of an engine that has ended.
struct EngineEnding {
  ProcessEnd process;
  /// The Failure event, if one came.
  std::optional<v1::Failure> reported;
  /// The ArtifactWritten event came, and an Evaluation event.
  bool artifact_written = false;
  bool evaluated = false;
  /// Not OK: what came through the event pipe was no event, or an engine that was not killed by a
  /// signal ended within one.
  absl::Status stream;
  /// Where the engine was when last heard of (position_of); empty before the first progress.
  std::string position;
  /// Its last line on stderr.
  std::string last_line;
};

/// The one table that maps the ending of an engine to a failure, whose class alone decides about
/// retries; nullopt if the engine succeeded. Pure. `code` and `message` are always set.
std::optional<v1::Failure> classify_engine_ending(const EngineEnding& ending);

/// The same table's part for everything else that can end an attempt: an error (not OK) of the
/// database, the artifact store, or of the attempt's preparation. The failure has no position:
/// the engine is not to blame.
v1::Failure classify_status(const absl::Status& status);

/// "block_training block 3 step 17": equal for two attempts that got equally far.
std::string position_of(const v1::Progress& progress);

/// "caller", "resource", "infrastructure", "internal": label of metrics.
std::string failure_class_name(v1::FailureClass failure_class);

}  // namespace qaas
