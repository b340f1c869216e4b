#pragma once

#include <functional>

#include <absl/status/status.h>

#include "workers/agent/attempt_control.h"

namespace qaas {

/// True if the same call may succeed later: the database or the store is away, busy, or did not
/// answer for certain.
bool is_passing(const absl::Status& status);

/// Calls `write`, a fenced write that may be repeated, again with growing pauses (0.1 s to 2 s)
/// until it succeeds, fails for good, the lease is lost, or `control` says to give up. Returns the
/// last result; kAborted marks the lease as lost.
absl::Status retry_write(AttemptControl& control, const std::function<absl::Status()>& write);

}  // namespace qaas
