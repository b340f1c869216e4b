#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

/// Comparisons of tensors for EXPECT_TRUE: a failure prints the shape, the worst index and both
/// values there, not the tensors.
namespace qaas::testing {

inline ::testing::AssertionResult same_form(const torch::Tensor& actual,
                                            const torch::Tensor& expected) {
  if (!actual.defined() || !expected.defined()) {
    return ::testing::AssertionFailure()
           << (actual.defined() ? "expected" : "actual") << " tensor is undefined";
  }
  if (actual.sizes() != expected.sizes() || actual.scalar_type() != expected.scalar_type()) {
    return ::testing::AssertionFailure()
           << actual.scalar_type() << " " << actual.sizes() << ", expected "
           << expected.scalar_type() << " " << expected.sizes();
  }
  return ::testing::AssertionSuccess();
}

/// Where `distance` (same shape, float64) is largest, with both values.
inline std::string worst_place(const torch::Tensor& actual, const torch::Tensor& expected,
                               const torch::Tensor& distance) {
  int64_t flat = distance.flatten().argmax().item<int64_t>();
  std::vector<int64_t> index(static_cast<size_t>(distance.dim()));
  const int64_t at = flat;
  for (int64_t d = distance.dim() - 1; d >= 0; --d) {
    index[static_cast<size_t>(d)] = flat % distance.size(d);
    flat /= distance.size(d);
  }
  std::ostringstream text;
  text.precision(9);
  text << "shape " << actual.sizes() << ", worst at " << at::IntArrayRef(index) << ": "
       << actual.flatten()[at].to(torch::kFloat64).item<double>() << ", expected "
       << expected.flatten()[at].to(torch::kFloat64).item<double>();
  return text.str();
}

/// Equal bit for bit (-0 is not 0; a NaN equals the same NaN).
inline ::testing::AssertionResult same_bits(const torch::Tensor& actual,
                                            const torch::Tensor& expected) {
  if (const auto form = same_form(actual, expected); !form) return form;
  const auto bits = [](const torch::Tensor& x) {
    switch (x.element_size()) {
      case 2:
        return x.contiguous().view(torch::kInt16);
      case 4:
        return x.contiguous().view(torch::kInt32);
      default:
        return x.contiguous().view(torch::kInt64);
    }
  };
  const torch::NoGradGuard no_grad;
  const torch::Tensor differs = bits(actual) != bits(expected);
  const auto count = differs.sum().item<int64_t>();
  if (count == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << count << " of " << actual.numel() << " elements differ, "
         << worst_place(actual, expected, differs.to(torch::kFloat64));
}

/// Every element within `relative` times the largest expected magnitude. Types may differ.
inline ::testing::AssertionResult is_near(const torch::Tensor& actual,
                                          const torch::Tensor& expected, double relative) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor a = actual.to(torch::kFloat64), e = expected.to(torch::kFloat64);
  if (const auto form = same_form(a, e); !form) return form;
  const torch::Tensor distance = (a - e).abs();
  const double limit = relative * e.abs().max().item<double>();
  const double worst = distance.max().item<double>();
  if (worst <= limit) return ::testing::AssertionSuccess();  // false for NaN
  return ::testing::AssertionFailure()
         << "difference " << worst << " above " << limit << ", " << worst_place(a, e, distance);
}

}  // namespace qaas::testing
