#include "server/forecast/laws.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace qaas::forecast {
namespace {

using ::qaas::testing::StatusIs;
using ::testing::HasSubstr;

// Computed from the paper's constants by an independent program; six printed digits.
TEST(Chen2025, EveryRowGivesItsTestVectors) {
  struct Vector {
    double parameters;
    double tokens;
    double group_size;
    double w4a4;
    double w4a16;
    double w16a4;
    double w4a4_fc2;
    double w16a4_fc2;
  };
  for (const Vector& v :
       std::vector<Vector>{{74e6, 1e10, 32, 0.058576, 0.027191, 0.038861, 0.047146, 0.025051},
                           {145e6, 2e10, 128, 0.069177, 0.026895, 0.048956, 0.047338, 0.026350},
                           {297e6, 5e10, 64, 0.056164, 0.022821, 0.038084, 0.040612, 0.022415},
                           {595e6, 1e11, 128, 0.057279, 0.020996, 0.039957, 0.038098, 0.021611},
                           {595e6, 1e11, 256, 0.063549, 0.022011, 0.045551, 0.039871, 0.022947},
                           {973e6, 2e11, 128, 0.054167, 0.019677, 0.037391, 0.035777, 0.020391},
                           {7e9, 2e12, 128, 0.041773, 0.014040, 0.028199, 0.026547, 0.015524}}) {
    const auto error = [&](const chen2025::Row& row) {
      return chen2025::error(row, v.parameters, v.tokens, v.group_size).value();
    };
    EXPECT_NEAR(error(chen2025::kW4A4), v.w4a4, 6e-7) << v.parameters;
    EXPECT_NEAR(error(chen2025::kW4A16), v.w4a16, 6e-7) << v.parameters;
    EXPECT_NEAR(error(chen2025::kW16A4), v.w16a4, 6e-7) << v.parameters;
    EXPECT_NEAR(error(chen2025::kW4A4Fc2At8), v.w4a4_fc2, 6e-7) << v.parameters;
    EXPECT_NEAR(error(chen2025::kW16A4Fc2At8), v.w16a4_fc2, 6e-7) << v.parameters;
  }
}

TEST(Chen2025, FullPrecisionLossGivesItsTestVectors) {
  EXPECT_NEAR(chen2025::full_precision_loss(145e6, 2e10).value(), 3.199797, 6e-7);
  EXPECT_NEAR(chen2025::full_precision_loss(595e6, 1e11).value(), 2.740661, 6e-7);
  EXPECT_NEAR(chen2025::full_precision_loss(973e6, 2e11).value(), 2.614030, 6e-7);
  EXPECT_NEAR(chen2025::full_precision_loss(7e9, 2e12).value(), 2.293882, 6e-7);
}

TEST(Chen2025, EffectiveParameterShareGivesItsTestVectors) {
  const auto share = [](const chen2025::Row& row, double n, double d, double g) {
    return chen2025::effective_parameter_share(n, chen2025::error(row, n, d, g).value()).value();
  };
  EXPECT_NEAR(share(chen2025::kW4A4, 595e6, 1e11, 32), 0.7677, 6e-5);
  EXPECT_NEAR(share(chen2025::kW4A4, 7e9, 1e12, 128), 0.6161, 6e-5);
  EXPECT_NEAR(share(chen2025::kW4A4, 70e9, 1e13, 256), 0.4758, 6e-5);
  EXPECT_NEAR(share(chen2025::kW4A4Fc2At8, 595e6, 1e11, 256), 0.7867, 6e-5);
  EXPECT_NEAR(share(chen2025::kW4A4Fc2At8, 70e9, 1e13, 32), 0.6872, 6e-5);
}

TEST(Chen2025, EffectiveParameterShareHasTheLossOfTheQuantizedModel) {
  const double error = chen2025::error(chen2025::kW4A16, 297e6, 5e10, 64).value();
  const double share = chen2025::effective_parameter_share(297e6, error).value();
  EXPECT_NEAR(chen2025::full_precision_loss(share * 297e6, 5e10).value(),
              chen2025::full_precision_loss(297e6, 5e10).value() + error, 1e-9);
}

TEST(Chen2025, GroupsOfOneLoseNothing) {
  EXPECT_EQ(chen2025::error(chen2025::kW4A16, 74e6, 1e10, 1).value(), 0);
}

TEST(Kumar2024, EffectiveWeightShareGivesItsTestVectors) {
  EXPECT_NEAR(kumar2024::effective_weight_share(4).value(), 0.6964, 6e-5);
  EXPECT_NEAR(kumar2024::effective_weight_share(8).value(), 0.932, 6e-4);
}

// The activation and cache shares are the sheet's printed figures.
TEST(Kumar2024, LossGivesItsTestVectors) {
  const double weights = kumar2024::effective_weight_share(4).value();
  EXPECT_NEAR(kumar2024::loss(220e6 * weights, 13e9).value(), 3.3077, 6e-5);
  EXPECT_NEAR(kumar2024::loss(220e6 * weights * 0.3314 * 0.8276, 13e9).value(), 3.6419, 1e-4);
  const double eight = kumar2024::effective_weight_share(8).value();
  EXPECT_NEAR(kumar2024::loss(220e6 * eight * 0.8906 * 0.9974, 13e9).value(), 3.2771, 1e-4);
  EXPECT_NEAR(kumar2024::loss(220e6, 13e9).value(), 3.2466, 6e-5);
}

TEST(Kumar2024, ErrorIsTheDifferenceToSixteenBits) {
  EXPECT_NEAR(kumar2024::error(220e6, 13e9, 4).value(), 3.3077 - 3.2466, 7e-4);
  EXPECT_EQ(kumar2024::error(220e6, 13e9, 16).value(), 0);
  EXPECT_GT(kumar2024::error(220e6, 13e9, 2).value(), kumar2024::error(220e6, 13e9, 3).value());
}

TEST(Kumar2024, RefusesWidthsThatLeaveNoParameters) {
  EXPECT_THAT(kumar2024::error(220e6, 13e9, 0.5),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("0.5 bits")));
}

TEST(Ouyang2024, ErrorGivesItsTestVectors) {
  EXPECT_NEAR(ouyang2024::error(1e9, 3e11, 4).value(), 0.0818, 6e-5);
  EXPECT_NEAR(ouyang2024::error(7e9, 2e12, 4).value(), 0.1427, 6e-5);
  EXPECT_NEAR(ouyang2024::error(8e9, 15e12, 4).value(), 0.3988, 6e-5);
  EXPECT_NEAR(ouyang2024::error(7e9, 2e12, 3).value(), 0.6937, 6e-5);
}

TEST(Ouyang2024, RefusesWidthsOutsideTwoToFour) {
  for (const double bits : {1.0, 8.0, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THAT(ouyang2024::error(1e9, 3e11, bits),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("2 to 4 bits")));
  }
}

TEST(Laws, RefuseWhatIsNotAPositiveCount) {
  for (const double bad : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(),
                           std::numeric_limits<double>::infinity()}) {
    const auto refused = StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("positive number"));
    EXPECT_THAT(chen2025::error(chen2025::kW4A16, bad, 1e10, 32), refused);
    EXPECT_THAT(chen2025::error(chen2025::kW4A16, 1e8, bad, 32), refused);
    EXPECT_THAT(chen2025::full_precision_loss(bad, 1e10), refused);
    EXPECT_THAT(kumar2024::loss(1e8, bad), refused);
    EXPECT_THAT(ouyang2024::error(bad, 1e10, 4), refused);
  }
  EXPECT_THAT(chen2025::error(chen2025::kW4A16, 1e8, 1e10, 0.5),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("group size of 1 or more")));
  EXPECT_THAT(chen2025::effective_parameter_share(1e8, -0.1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("error of 0 or more")));
}

}  // namespace
}  // namespace qaas::forecast
