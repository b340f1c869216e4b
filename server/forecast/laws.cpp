#include "server/forecast/laws.h"

#include <cmath>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

namespace qaas::forecast {
namespace {

absl::Status require_positive(const char* what, double value) {
  if (std::isfinite(value) && value > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the law needs a positive number of ", what, ", found ", value));
}

absl::Status require_parameters_and_tokens(double parameters, double tokens) {
  absl::Status status = require_positive("non-embedding parameters", parameters);
  status.Update(require_positive("training tokens", tokens));
  return status;
}

}  // namespace

namespace chen2025 {
namespace {

// Base law, appendix C; alpha and beta are tied.
constexpr double kE = 1.9279;
constexpr double kA = 237.7042;
constexpr double kAlpha = 0.3022;
constexpr double kB = 596.2490;
constexpr double kBeta = 0.3022;

}  // namespace

absl::StatusOr<double> error(const Row& row, double parameters, double tokens, double group_size) {
  const absl::Status status = require_parameters_and_tokens(parameters, tokens);
  if (!status.ok()) return status;
  if (!std::isfinite(group_size) || group_size < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the law needs a group size of 1 or more, found ", group_size));
  }
  return row.k * std::pow(tokens, row.gamma_d) * std::pow(std::log2(group_size), row.gamma_g) /
         std::pow(parameters, row.gamma_n);
}

absl::StatusOr<double> full_precision_loss(double parameters, double tokens) {
  const absl::Status status = require_parameters_and_tokens(parameters, tokens);
  if (!status.ok()) return status;
  return kA / std::pow(parameters, kAlpha) + kB / std::pow(tokens, kBeta) + kE;
}

absl::StatusOr<double> effective_parameter_share(double parameters, double error) {
  const absl::Status status = require_positive("non-embedding parameters", parameters);
  if (!status.ok()) return status;
  if (!std::isfinite(error) || error < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the law needs an error of 0 or more, found ", error));
  }
  return std::pow(kA / (kA + error * std::pow(parameters, kAlpha)), 1 / kAlpha);
}

}  // namespace chen2025

namespace kumar2024 {
namespace {

// Table 2.
constexpr double kA = 4.299e3;
constexpr double kB = 1.806e4;
constexpr double kE = 2.7648;
constexpr double kAlpha = 0.4965;
constexpr double kBeta = 0.4965;
constexpr double kGammaW = 2.6745;
constexpr double kOffsetW = 0.3037;
constexpr double kFullPrecisionBits = 16;

}  // namespace

absl::StatusOr<double> effective_weight_share(double bits) {
  const double share = 1 - std::exp(-bits / kGammaW + kOffsetW);
  if (std::isfinite(share) && share > 0) return share;
  return absl::InvalidArgumentError(
      absl::StrCat("the law gives weights of ", bits, " bits no effective parameters"));
}

absl::StatusOr<double> loss(double effective_parameters, double tokens) {
  const absl::Status status = require_parameters_and_tokens(effective_parameters, tokens);
  if (!status.ok()) return status;
  return kA * std::pow(effective_parameters, -kAlpha) + kB * std::pow(tokens, -kBeta) + kE;
}

absl::StatusOr<double> error(double parameters, double tokens, double bits) {
  const absl::StatusOr<double> share = effective_weight_share(bits);
  if (!share.ok()) return share.status();
  const absl::StatusOr<double> quantized = loss(parameters * *share, tokens);
  if (!quantized.ok()) return quantized.status();
  const absl::StatusOr<double> full =
      loss(parameters * *effective_weight_share(kFullPrecisionBits), tokens);
  if (!full.ok()) return full.status();
  return *quantized - *full;
}

}  // namespace kumar2024

namespace ouyang2024 {

absl::StatusOr<double> error(double parameters, double tokens, double bits) {
  const absl::Status status = require_parameters_and_tokens(parameters, tokens);
  if (!status.ok()) return status;
  if (!(bits >= kFittedBits.min && bits <= kFittedBits.max)) {
    return absl::InvalidArgumentError(absl::StrCat("the law covers 2 to 4 bits, found ", bits));
  }
  return 0.017 * std::pow(tokens, 0.5251) / (std::pow(parameters, 0.2261) * std::pow(bits, 5.4967));
}

}  // namespace ouyang2024

}  // namespace qaas::forecast
