#include <algorithm>
#include <cmath>
#include <numbers>

#include <gmock/gmock.h>

#include "workers/engine/train/learning_rate.h"
#include "workers/engine/train/training.h"

namespace qaas {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAreArray;

std::vector<double> factors(const LearningRateShape& shape, int64_t steps) {
  std::vector<double> result;
  for (int64_t step = 0; step < steps; ++step) {
    result.push_back(learning_rate_factor(shape, step, steps));
  }
  return result;
}

TEST(LearningRate, ConstantIsOneThroughout) {
  EXPECT_THAT(factors({.kind = LearningRateShape::Kind::kConstant, .final_ratio = 0.5}, 3),
              ElementsAre(1.0, 1.0, 1.0));
}

TEST(LearningRate, CosineStartsAtThePeakAndFallsTowardsItsFinalRatio) {
  const auto rates = factors({.final_ratio = 0.05}, 100);
  for (int64_t t = 0; t < 100; ++t) {
    const double expected =
        0.05 + 0.95 * (1 + std::cos(std::numbers::pi * static_cast<double>(t) / 100)) / 2;
    EXPECT_NEAR(rates[size_t(t)], expected, 1e-12);
  }
  EXPECT_EQ(rates.front(), 1.0);
  EXPECT_NEAR(rates[50], 0.525, 1e-12);
  EXPECT_TRUE(std::is_sorted(rates.rbegin(), rates.rend()));
}

TEST(LearningRate, WarmupRisesOverItsShareOfTheStepsThenFallsToZero) {
  const auto rates = factors({.warmup_ratio = 0.03}, 128);  // ceil(3.84) = 4 steps
  for (size_t t = 0; t < 4; ++t) EXPECT_LT(rates[t], rates[t + 1]);
  EXPECT_GT(rates[0], 0);
  EXPECT_EQ(rates[4], 1.0);
  EXPECT_TRUE(std::is_sorted(rates.rbegin(), rates.rend() - 4));
  EXPECT_LT(rates.back(), 1e-3);
}

TEST(LearningRate, OneStepTrainsAtThePeakWithoutWarmup) {
  EXPECT_THAT(factors({.final_ratio = 0.05}, 1), ElementsAre(1.0));
}

TEST(LearningRate, EveryStepOfAWarmupThatFillsTheRunTrains) {
  for (const double rate : factors({.warmup_ratio = 1.0}, 5)) EXPECT_GT(rate, 0);
}

TEST(VisitingOrder, UnshuffledIsInOrder) {
  EXPECT_THAT(visiting_order(4, false, 9, 3), ElementsAre(0, 1, 2, 3));
}

TEST(VisitingOrder, ShuffledVisitsEachWindowOnce) {
  EXPECT_THAT(visiting_order(50, true, 2, 0),
              UnorderedElementsAreArray(visiting_order(50, false, 0, 0)));
}

TEST(VisitingOrder, DependsOnSeedAndEpochAlone) {
  const auto order = visiting_order(50, true, 2, 1);
  visiting_order(50, true, 7, 0);  // leaves nothing behind
  EXPECT_EQ(visiting_order(50, true, 2, 1), order);
  EXPECT_NE(visiting_order(50, true, 2, 0), order);
  EXPECT_NE(visiting_order(50, true, 3, 1), order);
  EXPECT_NE(visiting_order(50, true, (uint64_t{1} << 32) + 2, 1), order);
}

TEST(TrainingReport, LossesAtBothEndsAreMeansOfAtMostSixteenSteps) {
  TrainingReport report;
  EXPECT_EQ(report.initial_loss(), 0);
  EXPECT_EQ(report.final_loss(), 0);
  EXPECT_EQ(report.tokens_per_second(), 0);
  report.losses = {4.0, 2.0};
  EXPECT_EQ(report.initial_loss(), 3.0);
  EXPECT_EQ(report.final_loss(), 3.0);
  report.losses.assign(40, 1.0);
  std::fill_n(report.losses.begin(), 16, 3.0);
  EXPECT_EQ(report.initial_loss(), 3.0);
  EXPECT_EQ(report.final_loss(), 1.0);
}

TEST(LearningRateUnit, AStepSizeScalesTheRateAndAnAbsoluteOneStays) {
  EXPECT_EQ(absolute_learning_rate(0.5, LearningRateUnit::kStepSize, 0.25), 0.125);
  EXPECT_EQ(absolute_learning_rate(0.5, LearningRateUnit::kAbsolute, 0.25), 0.5);
}

}  // namespace
}  // namespace qaas
