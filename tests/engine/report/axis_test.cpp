#include "workers/engine/report/axis.h"

#include <cmath>

#include <gmock/gmock.h>

namespace qaas::report {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> labels(const Axis& axis) {
  std::vector<std::string> result;
  for (const Axis::Tick& tick : axis.ticks()) result.push_back(tick.label);
  return result;
}

TEST(Axis, LinearTicksAreRoundAndContainTheData) {
  EXPECT_THAT(labels(Axis(Scale::kLinear, 0.12, 0.93, 0, 100)),
              ElementsAre("0", "0.2", "0.4", "0.6", "0.8", "1"));
  EXPECT_THAT(labels(Axis(Scale::kLinear, -3, 7, 0, 100)),
              ElementsAre("-4", "-2", "0", "2", "4", "6", "8"));
}

TEST(Axis, LogTicksAreOneTwoFiveOverFewDecadesAndPowersOverMany) {
  EXPECT_THAT(labels(Axis(Scale::kLog, 1, 115, 0, 100)),
              ElementsAre("1", "2", "5", "10", "20", "50", "100"));
  EXPECT_THAT(labels(Axis(Scale::kLog, 1e-6, 1e-1, 0, 100)),
              ElementsAre("1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1"));
}

TEST(Axis, ALogAxisGivesEqualRatiosEqualLengths) {
  const Axis axis(Scale::kLog, 1, 100, 50, 250);
  EXPECT_NEAR(axis.pixel(1), 50, 1e-9);
  EXPECT_NEAR(axis.pixel(10), 150, 1e-9);
  EXPECT_NEAR(axis.pixel(100), 250, 1e-9);
}

TEST(Axis, PixelsMayRunBackwardsAndStopAtTheEnds) {
  const Axis axis(Scale::kLinear, 0, 10, 100, 0);
  EXPECT_NEAR(axis.pixel(2), 80, 1e-9);
  EXPECT_NEAR(axis.pixel(-5), 100, 1e-9);
  EXPECT_NEAR(axis.pixel(99), 0, 1e-9);
}

TEST(Axis, EndsAtTheDataWhereAsked) {
  const Axis axis(Scale::kLinear, 0.12, 0.93, 0, 100, Ends::kData);
  EXPECT_NEAR(axis.pixel(0.12), 0, 1e-9);
  EXPECT_NEAR(axis.pixel(0.93), 100, 1e-9);
}

TEST(Axis, SurvivesEveryDegenerateRange) {
  const double inf = INFINITY;
  for (const Scale scale : {Scale::kLinear, Scale::kLog}) {
    for (const auto& [low, high] : std::vector<std::pair<double, double>>{{inf, -inf},
                                                                          {NAN, NAN},
                                                                          {0, 0},
                                                                          {3, 3},
                                                                          {-3, -3},
                                                                          {0, 1e-300},
                                                                          {5e-324, 1e308},
                                                                          {-1e308, 1e308}}) {
      const Axis axis(scale, low, high, 0, 100);
      EXPECT_LE(axis.ticks().size(), 20u) << low << " " << high;
      for (const double value : {low, high, 0.0, double(NAN), inf}) {
        EXPECT_TRUE(axis.pixel(value) >= 0 && axis.pixel(value) <= 100)
            << low << " " << high << " " << value;
      }
    }
  }
}

TEST(Axis, ScaleFollowsTheSpanOfTheData) {
  EXPECT_EQ(fitting_scale({1, 5, 9}), Scale::kLinear);
  EXPECT_EQ(fitting_scale({1, 5, 90}), Scale::kLog);
  EXPECT_EQ(fitting_scale({0, 5, 90}), Scale::kLinear);
  EXPECT_EQ(fitting_scale({1, NAN, 90}), Scale::kLog);
  EXPECT_EQ(fitting_scale({}), Scale::kLinear);
}

}  // namespace
}  // namespace qaas::report
