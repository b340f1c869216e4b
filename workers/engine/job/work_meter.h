#pragma once

#include <chrono>

namespace qaas {

/// How far a run is, from units of work of roughly equal duration (one window through one block
/// forward). Rate-limits reports to one a second. Not thread-safe.
class WorkMeter {
 public:
  explicit WorkMeter(double total_units) : total_(total_units) {}

  void add(double units) { done_ += units; }
  /// Work that an earlier attempt did: done, but not at this run's rate.
  void skip(double units) {
    done_ += units;
    skipped_ += units;
  }

  double fraction() const;
  double remaining_seconds() const;
  /// True at most once a second.
  bool due();

 private:
  using Clock = std::chrono::steady_clock;
  double total_, done_ = 0, skipped_ = 0;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = start_;
};

}  // namespace qaas
