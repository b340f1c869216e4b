#pragma once

#include <cstdint>

#include <absl/status/statusor.h>

/// Published scaling laws of quantization as pure functions. Losses and errors are in nats a token;
/// N counts non-embedding parameters, D training tokens, both raw. A value outside a law's domain
/// gives kInvalidArgument with the reason, never a NaN. Being inside the domain does not mean being
/// inside the range the law was fitted on: see the ranges beside each.
namespace qaas::forecast {

/// Inclusive range of an input over which a law was fitted.
struct Range {
  double min = 0;
  double max = 0;
};

/// Chen et al., "Scaling Law for Quantization-Aware Training", arXiv 2505.14302: 4-bit symmetric
/// integer QAT from scratch, Llama-3 style models on OLMo2-Mix.
namespace chen2025 {

inline constexpr Range kFittedParameters{74e6, 595e6};
inline constexpr Range kFittedTokens{10e9, 100e9};
inline constexpr Range kFittedGroupSize{32, 256};

/// One row of the paper's table 1.
struct Row {
  const char* precision;
  double k;
  double gamma_n;
  double gamma_d;
  double gamma_g;
};
inline constexpr Row kW4A4{"W4A4", 0.1582, 0.2186, 0.0745, 0.7779};
inline constexpr Row kW4A16{"W4A16", 0.2522, 0.3589, 0.1610, 0.3533};
inline constexpr Row kW16A4{"W16A4", 0.1004, 0.1816, 0.0331, 0.9812};
/// The input of the feed-forward's second product is kept at 8 bits.
inline constexpr Row kW4A4Fc2At8{"W4A4, FC2 input 8-bit", 0.3519, 0.2637, 0.0964, 0.3407};
inline constexpr Row kW16A4Fc2At8{"W16A4, FC2 input 8-bit", 0.1273, 0.2347, 0.0827, 0.4491};

/// Published relative error of the predicted error (table 4): weights at 4 bits, and activations
/// too.
inline constexpr double kW4A16RelativeError = 0.052;
inline constexpr double kW4A4RelativeError = 0.047;

/// Loss added by quantization, eq. 5: k * D^gamma_d * log2(G)^gamma_g / N^gamma_n. Group size G is
/// 1 or more (1 gives 0); parameters and tokens are positive.
absl::StatusOr<double> error(const Row& row, double parameters, double tokens, double group_size);

/// Loss of the unquantized model: A / N^alpha + B / D^beta + E.
absl::StatusOr<double> full_precision_loss(double parameters, double tokens);

/// Effective parameter multiplier: the unquantized model of this share of the parameters, trained
/// on as many tokens, has the loss of the quantized one; 0 to 1.
/// (A / (A + error * N^alpha))^(1 / alpha)
absl::StatusOr<double> effective_parameter_share(double parameters, double error);

}  // namespace chen2025

/// Kumar et al., "Scaling Laws for Precision", arXiv 2411.04330: weights trained at P bits from
/// scratch, one scale per output channel, OLMo-style models on Dolma.
namespace kumar2024 {

inline constexpr Range kFittedParameters{30e6, 220e6};
inline constexpr Range kFittedTokens{1.5e9, 26e9};
inline constexpr Range kFittedBits{3, 16};

/// Share of the parameters that weights of P bits are worth: f_w(P) = 1 - exp(-P / gamma_w + n_w).
absl::StatusOr<double> effective_weight_share(double bits);

/// Loss of a model with `effective_parameters` = N * f_w(P): A * N_eff^-alpha + B * D^-beta + E.
absl::StatusOr<double> loss(double effective_parameters, double tokens);

/// loss(N * f_w(bits), D) - loss(N * f_w(16), D). D cancels out, and is checked all the same.
absl::StatusOr<double> error(double parameters, double tokens, double bits);

}  // namespace kumar2024

/// Ouyang et al., "Low-Bit Quantization Favors Undertrained LLMs", arXiv 2411.17691: post-training
/// quantization by GPTQ of Pythia checkpoints.
namespace ouyang2024 {

inline constexpr Range kFittedParameters{160e6, 12e9};
inline constexpr Range kFittedTokens{1e9, 206e9};
inline constexpr Range kFittedBits{2, 4};

/// Loss added by quantization: 0.017 * D^0.5251 / (N^0.2261 * P^5.4967). Refused outside 2 to 4
/// bits, where the power law has no support.
absl::StatusOr<double> error(double parameters, double tokens, double bits);

}  // namespace ouyang2024

}  // namespace qaas::forecast
