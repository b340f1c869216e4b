#include "workers/engine/job/reporter.h"

#include <utility>

#include "workers/engine/report/training_curve.h"

namespace qaas {

void Reporter::start_phase(v1::Phase phase) {
  phase_ = phase;
  v1::EngineEvent event;
  event.mutable_phase_started()->set_phase(phase);
  sink_(event);
}

void Reporter::warn(const std::string& message) {
  v1::EngineEvent event;
  event.mutable_warning()->set_message(message);
  sink_(event);
}

void Reporter::progress(v1::Progress progress) {
  if (!meter_.due()) return;
  progress.set_phase(phase_);
  progress.set_fraction(meter_.fraction());
  progress.set_remaining_seconds(meter_.remaining_seconds());
  v1::EngineEvent event;
  *event.mutable_progress() = std::move(progress);
  sink_(event);
}

void Reporter::training_curve(const v1::TrainingCurve& curve) {
  v1::EngineEvent event;
  *event.mutable_training_curve() = thinned(curve);
  sink_(event);
}

}  // namespace qaas
