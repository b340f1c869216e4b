#pragma once

#include "qaas/v1/job_spec.pb.h"
#include "qaas/v1/training_options.pb.h"

/// The constants behind every default of training, in one place: what each preset stands for.
/// Defaults that follow from other fields of a spec (batches no larger than the windows, no warmup
/// of a constant rate) are defaults.cpp's.
namespace qaas {

/// Where codes and scales start: the initializer and, for GPTQ, where its qparams come from.
v1::Initialisation initialisation_preset(v1::Method method, v1::Preset preset);

/// Block-AP under `preset` at `bits` a weight. Without zero_point_learning_rate and
/// norm_learning_rate where they follow the rates of scales and weights.
v1::BlockApOptions block_ap_preset(v1::Preset preset, int bits);

/// EfficientQAT's end-to-end stage under `preset` at `bits` a weight.
v1::EndToEndOptions e2e_qp_preset(v1::Preset preset, int bits);

/// Distillation QAT; it has one set of defaults.
v1::EndToEndOptions distillation_preset();

/// Adds what `kind` leaves open in an objective of that kind: temperature, weights.
v1::Objective objective_preset(v1::ObjectiveKind kind);

}  // namespace qaas
