#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "qaas/v1/event.pb.h"
#include "workers/agent/agent_metrics.h"
#include "workers/agent/attempt_control.h"
#include "workers/agent/child_process.h"
#include "workers/agent/engine_log.h"
#include "workers/agent/failure_table.h"

namespace qaas {

/// How an engine is watched and stopped.
struct EngineRunOptions {
  /// Time an engine has between SIGTERM and SIGKILL when its job is cancelled.
  std::chrono::milliseconds cancel_grace{10000};
  /// The same when the worker stops: the engine finishes its step and writes a checkpoint.
  std::chrono::milliseconds stop_grace{60000};
  EngineLogOptions log;
};

/// Sees a running engine to its end: drains both its pipes on threads of their own, gives each
/// event to `on_event` and each stderr line to `on_line` (both called on those threads, one call at
/// a time each), and stops it when `control` says so: at once when the lease is lost or expired,
/// with SIGTERM and a grace otherwise. An engine whose events make no sense is killed.
EngineEnding run_engine(ChildProcess& engine, const EngineRunOptions& options,
                        AttemptControl& control, AgentMetrics& metrics,
                        const std::function<void(const v1::EngineEvent&)>& on_event,
                        const std::function<void(const std::string&)>& on_line);

}  // namespace qaas
