#include "workers/engine/quant/gptq.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include <absl/strings/str_cat.h>

namespace qaas {
namespace {

constexpr double kMostDamping = 10;
constexpr double kLeastRaisedDamping = 1e-4;  // so that none at all can be raised too

/// Columns of the Hessian summed by one product: only what is on and below the diagonal, and the
/// rest of the panel's own square.
constexpr int64_t kPanel = 256;

/// Upper triangular U with M⁻¹ = UᵀU from `reversed` = J·M·J, J the reversal; none if that is not
/// positive definite. J·M·J = L·Lᵀ gives M = R·Rᵀ with R = J·L·J upper triangular, so
/// U = R⁻¹ = J·L⁻¹·J: one factorization and one triangular inverse, never M⁻¹ itself.
torch::Tensor inverse_factor(const torch::Tensor& reversed) {
  const auto [lower, error] = at::linalg_cholesky_ex(reversed);
  if (error.item<int>() != 0) return {};
  const torch::Tensor identity = torch::eye(lower.size(0), lower.options());
  return at::linalg_solve_triangular(lower, identity, /*upper=*/false).flip({0, 1});
}

/// [rows, cols] with columns put in `order`, transposed so that each is one run of memory.
torch::Tensor ordered_columns(const torch::Tensor& matrix, const torch::Tensor& order) {
  return matrix.t().index_select(0, order);
}

}  // namespace

HessianAccumulator::HessianAccumulator(int64_t inputs) : sum_(torch::zeros({inputs, inputs})) {}

void HessianAccumulator::add(const torch::Tensor& x) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor widened = x.detach().to(torch::kFloat32);  // [tokens, inputs]
  const int64_t inputs = sum_.size(0);
  for (int64_t first = 0; first < inputs; first += kPanel) {
    const int64_t count = std::min(kPanel, inputs - first);
    sum_.narrow(0, first, inputs - first)
        .narrow(1, first, count)
        .addmm_(widened.narrow(1, first, inputs - first).t(), widened.narrow(1, first, count));
  }
  tokens_ += x.size(0);
}

torch::Tensor HessianAccumulator::hessian() const {
  torch::Tensor full = sum_.tril();
  full += sum_.tril(-1).t();
  return full.mul_(2.0 / static_cast<double>(std::max<int64_t>(tokens_, 1)));
}

absl::StatusOr<GptqFactor> factor_hessian(const torch::Tensor& hessian,
                                          const GptqOptions& options) {
  const torch::NoGradGuard no_grad;
  torch::Tensor diagonal = hessian.diagonal().clone();  // [inputs]
  if (!torch::isfinite(hessian).all().item<bool>()) {
    return absl::InvalidArgumentError(
        "its inputs on the calibration text are NaN, infinite or too large to square");
  }
  const double mean = diagonal.mean(torch::kFloat64).item<double>();
  const double unit = mean > 0 ? mean : 1.0;
  diagonal.masked_fill_(diagonal <= 0, unit);  // never active: any positive value decouples it
  GptqFactor factor;
  factor.order = options.activation_order
                     ? torch::argsort(hessian.diagonal(), /*stable=*/true, 0, /*descending=*/true)
                     : torch::arange(hessian.size(0));
  const torch::Tensor backwards = factor.order.flip(0);
  torch::Tensor reversed = hessian.index_select(0, backwards).index_select(1, backwards);
  const torch::Tensor reversed_diagonal = diagonal.index_select(0, backwards);
  for (double damping = options.damping; damping <= kMostDamping;
       damping = std::max(10 * damping, kLeastRaisedDamping)) {
    reversed.diagonal().copy_(reversed_diagonal + damping * unit);
    factor.upper = inverse_factor(reversed);
    factor.damping = damping;
    if (factor.upper.defined() && torch::isfinite(factor.upper).all().item<bool>()) return factor;
  }
  return absl::InternalError(absl::StrCat("its Hessian is not positive definite with a damping of ",
                                          factor.damping, " of the mean diagonal"));
}

torch::Tensor gptq_weights(const torch::Tensor& weight, const GptqFactor& factor,
                           const Qparams& qparams, const AffineGrid& grid,
                           const GptqOptions& options) {
  const torch::NoGradGuard no_grad;
  const int64_t cols = weight.size(1);
  TORCH_CHECK(factor.upper.size(0) == cols, "a Hessian of ", factor.upper.size(0),
              " inputs for a weight of ", cols);
  // Everything transposed, so that a column is a run of memory and a block of them a matrix.
  torch::Tensor columns = ordered_columns(weight.detach(), factor.order);  // [in, out]
  const torch::Tensor scales = effective_scale(qparams.scale.detach()).t().contiguous();
  const torch::Tensor zeros = effective_zero_point(qparams.zero_point.detach(), grid.bits)
                                  .t()
                                  .contiguous();  // [groups, out]
  const auto max_code = static_cast<double>(grid.max_code());
  const std::vector<int64_t> order(factor.order.data_ptr<int64_t>(),
                                   factor.order.data_ptr<int64_t>() + cols);
  const torch::Tensor diagonal = factor.upper.diagonal().contiguous();  // [in]
  const float* divisors = diagonal.data_ptr<float>();

  for (int64_t first = 0; first < cols; first += options.block_columns) {
    const int64_t count = std::min(options.block_columns, cols - first);
    torch::Tensor errors = torch::empty({count, weight.size(0)});  // [block, out]
    for (int64_t i = 0; i < count; ++i) {
      const int64_t column = first + i;
      const int64_t group = order[static_cast<size_t>(column)] / grid.group_size;
      const torch::Tensor scale = scales[group], zero = zeros[group], value = columns[column];
      torch::Tensor error = errors[i];  // [out]
      // The same arithmetic as fake_quantize, so that its codes will be these.
      at::div_out(error, value, scale);
      error.round_().add_(zero).clamp_(0, max_code).sub_(zero).mul_(scale);
      at::sub_out(error, value, error).div_(divisors[column]);
      if (i + 1 < count) {
        columns.narrow(0, column + 1, count - i - 1)
            .addr_(factor.upper[column].narrow(0, column + 1, count - i - 1), error, 1, -1);
      }
    }
    const int64_t rest = first + count;
    if (rest < cols) {
      columns.narrow(0, rest, cols - rest)
          .addmm_(factor.upper.narrow(0, first, count).narrow(1, rest, cols - rest).t(), errors, 1,
                  -1);
    }
  }
  torch::Tensor result = torch::empty_like(weight);
  result.t().index_copy_(0, factor.order, columns);
  return result;
}

}  // namespace qaas
