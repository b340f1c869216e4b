#include "workers/engine/eval/mean_estimate.h"

#include <cmath>

#include <gtest/gtest.h>

namespace qaas {
namespace {

TEST(MeanEstimate, OfZerosAndOnesHasTheErrorOfAProportion) {
  const MeanEstimate estimate = estimate_mean({1, 0, 1, 1, 0, 1, 1, 0});
  EXPECT_DOUBLE_EQ(estimate.mean, 5.0 / 8);
  EXPECT_DOUBLE_EQ(estimate.standard_error, std::sqrt(5.0 / 8 * (3.0 / 8) / 7));
}

TEST(MeanEstimate, OfOneValueClaimsNoError) {
  EXPECT_EQ(estimate_mean({3}).mean, 3);
  EXPECT_EQ(estimate_mean({3}).standard_error, 0);
  EXPECT_EQ(estimate_mean({}).mean, 0);
}

}  // namespace
}  // namespace qaas
