#include "workers/engine/quant/hadamard.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace qaas {
namespace {

bool is_prime(int64_t n) {
  if (n < 2) return false;
  for (int64_t d = 2; d * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return true;
}

/// Jacobsthal's matrix of prime q: entry (i, j) is the Legendre symbol of i - j. [q, q] float64
torch::Tensor jacobsthal(int64_t q) {
  std::vector<double> symbol(static_cast<size_t>(q), -1.0);
  symbol[0] = 0;
  for (int64_t x = 1; x < q; ++x) symbol[static_cast<size_t>(x * x % q)] = 1;
  const torch::Tensor index = torch::arange(q);
  const torch::Tensor difference = (index.unsqueeze(1) - index + q).remainder(q);  // [q, q]
  return torch::tensor(symbol, torch::kFloat64).index_select(0, difference.flatten()).view({q, q});
}

/// The conference matrix [[0, 1], [sign, J]] around Jacobsthal's, [q + 1, q + 1].
torch::Tensor conference(int64_t q, double sign) {
  torch::Tensor c = torch::zeros({q + 1, q + 1}, torch::kFloat64);
  c[0].slice(0, 1).fill_(1);
  c.select(1, 0).slice(0, 1).fill_(sign);
  c.slice(0, 1).slice(1, 1).copy_(jacobsthal(q));
  return c;
}

torch::Tensor double_order(const torch::Tensor& h) {
  return torch::cat({torch::cat({h, h}, 1), torch::cat({h, -h}, 1)}, 0);
}

torch::Tensor random_orthogonal(int64_t size, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<size_t>(size * size));
  for (double& x : values) x = normal(random);
  const auto [q, r] = at::linalg_qr(torch::tensor(values, torch::kFloat64).view({size, size}));
  return q * torch::sign(r.diagonal());
}

}  // namespace

std::optional<torch::Tensor> hadamard_matrix(int64_t order) {
  if (order == 1) return torch::ones({1, 1}, torch::kFloat64);
  if (order == 2) return double_order(torch::ones({1, 1}, torch::kFloat64));
  if (order < 4 || order % 4 != 0) return std::nullopt;
  if (const int64_t q = order - 1; is_prime(q)) {  // q = 3 mod 4
    return conference(q, -1) + torch::eye(order, torch::kFloat64);
  }
  if (const int64_t q = order / 2 - 1; q % 4 == 1 && is_prime(q)) {
    // C ⊗ [[1, 1], [1, -1]] + I ⊗ [[1, -1], [-1, -1]], written in blocks.
    const torch::Tensor c = conference(q, 1), one = torch::eye(q + 1, torch::kFloat64);
    return torch::cat({torch::cat({c + one, c - one}, 1), torch::cat({c - one, -c - one}, 1)}, 0);
  }
  const std::optional<torch::Tensor> half = hadamard_matrix(order / 2);
  if (!half.has_value()) return std::nullopt;
  return double_order(*half);
}

RandomRotation::RandomRotation(int64_t size, uint64_t seed) : size_(size) {
  TORCH_CHECK(size > 0, "a rotation of size ", size);
  std::mt19937_64 random(seed);
  std::vector<double> signs(static_cast<size_t>(size));
  for (double& sign : signs) sign = (random() >> 63) != 0 ? 1.0 : -1.0;
  signs_ = torch::tensor(signs, torch::kFloat64);
  const int64_t power = size & -size, odd = size / power;
  int64_t core = odd;
  if (odd > 1) {
    for (core = 4 * odd; core <= size; core *= 2) {
      if (const auto h = hadamard_matrix(core); h.has_value()) {
        core_ = *h / std::sqrt(static_cast<double>(core));
        return;
      }
    }
    is_hadamard_ = false;
    core_ = random_orthogonal(odd, random);
    return;
  }
  core_ = torch::ones({1, 1}, torch::kFloat64);
}

void RandomRotation::apply(const torch::Tensor& rows, const torch::Tensor& scale,
                           torch::Tensor out) const {
  TORCH_CHECK(rows.dim() == 2 && rows.size(1) == size_ && rows.sizes() == out.sizes(), "rows of ",
              rows.sizes(), " into ", out.sizes(), " by a rotation of ", size_);
  constexpr int64_t kElementsAtATime = int64_t{1} << 20;
  const torch::NoGradGuard no_grad;
  const torch::Tensor factors =
      scale.defined() ? signs_ * scale.to(torch::kFloat64) : signs_;  // [size]
  const int64_t core = core_.size(0), power = size_ / core;
  const int64_t step = std::max<int64_t>(1, kElementsAtATime / size_);
  for (int64_t first = 0; first < rows.size(0); first += step) {
    const int64_t count = std::min(step, rows.size(0) - first);
    torch::Tensor x = rows.narrow(0, first, count).to(torch::kFloat64) * factors;  // [count, size]
    // Sylvester's matrix as log2(power) butterflies over the slow of the two indices.
    for (int64_t stride = core; stride < size_; stride *= 2) {
      const torch::Tensor pairs = x.view({count, -1, 2, stride});
      const torch::Tensor a = pairs.select(2, 0), b = pairs.select(2, 1);
      x = torch::stack({a + b, a - b}, 2).view({count, size_});
    }
    x = x.view({count * power, core}).mm(core_).view({count, size_});
    out.narrow(0, first, count).copy_(x.div_(std::sqrt(static_cast<double>(power))));
  }
}

}  // namespace qaas
