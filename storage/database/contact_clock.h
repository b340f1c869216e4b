#pragma once

#include <chrono>

namespace qaas {

/// Knows for how long the database has been in contact without a break. Whoever rescues the jobs of
/// others waits for a full lease length of it: after an outage every lease has run out although
/// the workers live. A long gap between two signs of life is a break too: this process may have
/// been stopped in between. Not thread-safe.
class ContactClock {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  /// Signs of life `longest_gap` or more apart count as a break.
  ContactClock(std::chrono::milliseconds lease, std::chrono::milliseconds longest_gap)
      : lease_(lease), longest_gap_(longest_gap) {}

  /// Notes the result of asking the database at `now`; true if contact has lasted a whole lease.
  bool note(TimePoint now, bool reached);

 private:
  const std::chrono::milliseconds lease_;
  const std::chrono::milliseconds longest_gap_;
  bool in_contact_ = false;
  TimePoint since_{};  // while in contact
  TimePoint last_{};
};

}  // namespace qaas
