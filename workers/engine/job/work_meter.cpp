#include "workers/engine/job/work_meter.h"

#include <algorithm>

namespace qaas {

double WorkMeter::fraction() const {
  return total_ > 0 ? std::clamp(done_ / total_, 0.0, 1.0) : 0.0;
}

double WorkMeter::remaining_seconds() const {
  const double worked = done_ - skipped_;
  if (worked <= 0) return 0;
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  return elapsed / worked * std::max(0.0, total_ - done_);
}

bool WorkMeter::due() {
  const auto now = Clock::now();
  if (now - last_ < std::chrono::seconds(1)) return false;
  last_ = now;
  return true;
}

}  // namespace qaas
