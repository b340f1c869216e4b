#pragma once

#include "qaas/v1/measurements.pb.h"

namespace qaas {

/// `curve` with at most `most` of its steps (2 or more), evenly spread, the first and the last
/// among them; each loss is the mean over the steps since the one kept before, so that no part of
/// the training goes unseen. Everything else, and a curve that is short enough, stays as it is.
v1::TrainingCurve thinned(const v1::TrainingCurve& curve, int most = 128);

/// Mean loss of the first, or the last, steps: of 16, or of all where there are fewer. 0 without
/// steps.
double first_steps_loss(const v1::TrainingCurve& curve);
double last_steps_loss(const v1::TrainingCurve& curve);

}  // namespace qaas
