#include "workers/engine/report/training_curve.h"

#include <numeric>

#include <gtest/gtest.h>

namespace qaas {
namespace {

v1::TrainingCurve falling(int steps) {
  v1::TrainingCurve curve;
  curve.set_stage("e2e_qp");
  curve.set_tokens(123);
  curve.add_validation_losses(0.5);
  for (int i = 1; i <= steps; ++i) {
    curve.add_steps(i);
    curve.add_losses(1.0 / i);
  }
  return curve;
}

TEST(Thinned, LeavesAShortCurveAlone) {
  const v1::TrainingCurve curve = falling(128);
  EXPECT_EQ(thinned(curve).SerializeAsString(), curve.SerializeAsString());
}

TEST(Thinned, KeepsBothEndsAndEverythingElse) {
  for (const int steps : {129, 130, 255, 1000, 98765}) {
    const v1::TrainingCurve thin = thinned(falling(steps));
    ASSERT_EQ(thin.steps_size(), 128);
    ASSERT_EQ(thin.losses_size(), 128);
    EXPECT_EQ(thin.steps(0), 1);
    EXPECT_EQ(thin.steps(127), steps);
    EXPECT_EQ(thin.stage(), "e2e_qp");
    EXPECT_EQ(thin.tokens(), 123);
    EXPECT_EQ(thin.validation_losses_size(), 1);
    for (int i = 1; i < 128; ++i) {
      const int64_t gap = thin.steps(i) - thin.steps(i - 1);
      EXPECT_GE(gap, (steps - 1) / 127);
      EXPECT_LE(gap, (steps - 1) / 127 + 1);
    }
  }
}

TEST(Thinned, EveryStepCountsInOneOfTheMeans) {
  const v1::TrainingCurve curve = falling(1000), thin = thinned(curve, 10);
  double sum = 0;
  for (int i = 0; i < 10; ++i) {
    const int64_t steps = thin.steps(i) - (i == 0 ? 0 : thin.steps(i - 1));
    sum += thin.losses(i) * static_cast<double>(steps);
  }
  EXPECT_NEAR(sum, std::accumulate(curve.losses().begin(), curve.losses().end(), 0.0), 1e-9);
}

TEST(TrainingCurve, EndLossesAreMeansOfSixteenStepsAtMost) {
  v1::TrainingCurve curve;
  EXPECT_EQ(first_steps_loss(curve), 0);
  for (int i = 1; i <= 32; ++i) curve.add_losses(i);
  EXPECT_DOUBLE_EQ(first_steps_loss(curve), 8.5);
  EXPECT_DOUBLE_EQ(last_steps_loss(curve), 24.5);
  curve.mutable_losses()->Truncate(3);
  EXPECT_DOUBLE_EQ(first_steps_loss(curve), 2);
  EXPECT_DOUBLE_EQ(last_steps_loss(curve), 2);
}

}  // namespace
}  // namespace qaas
