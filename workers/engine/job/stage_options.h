#pragma once

#include <string>

#include "qaas/v1/job_spec.pb.h"
#include "qaas/v1/measurements.pb.h"
#include "workers/engine/quant/activation_quant.h"
#include "workers/engine/quant/quantized_block.h"
#include "workers/engine/quant/quantized_ends.h"
#include "workers/engine/train/block_ap.h"
#include "workers/engine/train/end_to_end.h"
#include "workers/engine/train/initialise_block.h"

namespace qaas {

/// The stages' options from a spec with defaults filled in: the one place where the API's words
/// become the engine's.
BlockApOptions block_ap_options(const v1::JobSpec& spec, torch::ScalarType compute);
EndToEndOptions end_to_end_options(const v1::EndToEndOptions& from, const v1::JobSpec& spec,
                                   torch::ScalarType compute);

/// What a stage reports of its training, every step.
v1::TrainingCurve training_curve(const std::string& stage, const TrainingReport& report);

/// Whether an end-to-end stage of the spec trains weights, which then need their masters.
bool trains_weights_end_to_end(const v1::JobSpec& spec);

/// How the projections of block `index` start.
InitialiseOptions initialise_options(const v1::JobSpec& spec, int64_t index,
                                     torch::ScalarType compute);

/// Grids of the projections of block `index`.
GridOf grids_of_block(const v1::JobSpec& spec, int64_t index);

/// How the inputs of the quantized projections of block `index` are quantized: nothing names any
/// where the spec has no "activations". `spec` must outlive the result.
ActivationOf activations_of_block(const v1::JobSpec& spec, int64_t index);

/// What the spec quantizes of a model's ends.
EndsQuantization ends_quantization(const v1::JobSpec& spec, const ModelConfig& config);

}  // namespace qaas
