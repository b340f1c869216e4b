#pragma once

#include <functional>
#include <string>

#include "qaas/v1/event.pb.h"
#include "workers/engine/job/work_meter.h"

namespace qaas {

/// Receives what a run tells, in order, on the calling thread.
using EventSink = std::function<void(const v1::EngineEvent&)>;

/// How a run's stages speak to the outside: phases, warnings, and progress completed by phase and
/// meter. Not thread-safe.
class Reporter {
 public:
  /// `sink` must outlive the reporter. total_units: work of the whole run (work_units.h).
  Reporter(const EventSink& sink, double total_units) : sink_(sink), meter_(total_units) {}

  void start_phase(v1::Phase phase);
  void warn(const std::string& message);
  /// At most once a second; the rest are dropped.
  void progress(v1::Progress progress);
  /// The curve of a training that ended, thinned to what an event holds.
  void training_curve(const v1::TrainingCurve& curve);
  void send(const v1::EngineEvent& event) { sink_(event); }

  WorkMeter& meter() { return meter_; }

 private:
  const EventSink& sink_;
  WorkMeter meter_;
  v1::Phase phase_ = v1::PHASE_LOADING;
};

}  // namespace qaas
