#include "workers/engine/quant/hadamard.h"

#include <cmath>

#include "tests/support/tensor_matchers.h"

namespace qaas {
namespace {

using testing::is_near;
using testing::same_bits;

/// Q itself: the rotation of the unit vectors.
torch::Tensor matrix_of(const RandomRotation& rotation, int64_t size) {
  torch::Tensor q = torch::empty({size, size});
  rotation.apply(torch::eye(size), {}, q);
  return q;
}

TEST(Hadamard, RowsAreOrthogonalAndEntriesAreOfSizeOne) {
  for (const int64_t order : {1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 60, 72, 76, 80, 84}) {
    const auto h = hadamard_matrix(order);
    ASSERT_TRUE(h.has_value()) << order;
    ASSERT_EQ(h->sizes(), (std::vector<int64_t>{order, order}));
    EXPECT_TRUE((h->abs() == 1).all().item<bool>()) << order;
    EXPECT_TRUE(torch::equal(h->mm(h->t()),
                             torch::eye(order, torch::kFloat64) * static_cast<double>(order)))
        << order;
  }
}

TEST(Hadamard, ThereIsNoneOfOrdersThatAllowNone) {
  for (const int64_t order : {0, 3, 6, 10, 18, 30, 99}) {
    EXPECT_FALSE(hadamard_matrix(order).has_value()) << order;
  }
}

TEST(RandomRotation, IsOrthogonalForEverySize) {
  for (const int64_t size : {1, 3, 7, 24, 64, 96, 100, 288, 320, 896}) {
    const torch::Tensor q = matrix_of(RandomRotation(size, 5), size).to(torch::kFloat64);
    EXPECT_TRUE(is_near(q.mm(q.t()), torch::eye(size), 1e-6)) << size;
  }
}

TEST(RandomRotation, UsualHiddenSizesGetAHadamardMatrix) {
  for (const int64_t size : {64, 256, 288, 576, 768, 896, 960}) {
    const RandomRotation rotation(size, 1);
    EXPECT_TRUE(rotation.is_hadamard()) << size;
    const torch::Tensor magnitude = matrix_of(rotation, size).abs();
    EXPECT_TRUE(is_near(
        magnitude, torch::full_like(magnitude, 1 / std::sqrt(static_cast<double>(size))), 1e-6))
        << size;
  }
  EXPECT_FALSE(RandomRotation(99, 1).is_hadamard());
}

TEST(RandomRotation, ScalesTheColumnsFirst) {
  const RandomRotation rotation(96, 3);
  torch::manual_seed(1);
  const torch::Tensor rows = torch::randn({20, 96}), scale = torch::rand({96}) + 0.5;
  torch::Tensor got = torch::empty_like(rows);
  rotation.apply(rows.to(torch::kFloat16), scale, got);
  EXPECT_TRUE(is_near(
      got, (rows.to(torch::kFloat16).to(torch::kFloat32) * scale).mm(matrix_of(rotation, 96)),
      1e-6));
}

TEST(RandomRotation, FollowsTheSeed) {
  for (const int64_t size : {96, 99}) {
    const torch::Tensor q = matrix_of(RandomRotation(size, 8), size);
    EXPECT_TRUE(same_bits(matrix_of(RandomRotation(size, 8), size), q));
    EXPECT_FALSE(torch::equal(matrix_of(RandomRotation(size, 9), size), q));
  }
}

}  // namespace
}  // namespace qaas
