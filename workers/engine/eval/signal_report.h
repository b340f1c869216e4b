#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include <absl/status/statusor.h>

#include "qaas/v1/measurements.pb.h"
#include "workers/engine/eval/loss_sensitivity.h"

/// How quantization error travels through a model: SignalReport of measurements.proto. SQNR is the
/// textbook's 10 log10(|x|² / |x - x_hat|²), at most kMostSqnr; loss is mean next-token
/// cross-entropy.
namespace qaas {

/// Windows of calibration text that a report looks at, at most.
inline constexpr int64_t kMostSignalWindows = 32;

/// SQNR of an exact reproduction, dB.
inline constexpr double kMostSqnr = 300;

/// Whether training holds this projection (full name) at its post-training values.
using FrozenPredicate = std::function<bool(const std::string& projection)>;

struct SignalReportOptions {
  SensitivityOptions sensitivity;
  FrozenPredicate frozen;  ///< empty: nothing is
};

/// Compares the original with `quantized`, a source of its blocks in any quantized form, on the
/// first kMostSignalWindows of inputs.ids. Every projection gets an entry, in model order; bits 0
/// marks those that keep full precision. Two forward and two backward passes, and the
/// sensitivities. In memory at a time: a block of both models, and the streams. kCancelled on a
/// stop; whatever the sources fail with.
absl::StatusOr<v1::SignalReport> signal_report(const SignalInputs& inputs,
                                               const BlockSource& quantized,
                                               const SignalReportOptions& options);

/// Adds gradient_norm_trained: the same as gradient_norm_quantized in `trained`, the blocks after
/// training. `ends` are the trained model's.
absl::Status add_trained_gradients(const SignalInputs& inputs, const ModelEnds& ends,
                                   const BlockSource& trained, v1::SignalReport& report);

}  // namespace qaas
