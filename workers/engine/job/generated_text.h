#pragma once

#include <cstdint>
#include <stop_token>

#include <absl/status/statusor.h>
#include <torch/torch.h>

#include "qaas/v1/job_spec.pb.h"
#include "storage/checkpoint/model_folder.h"
#include "workers/engine/model/text_generation.h"

namespace qaas {

/// Whether text of `options` can be written with `available_bytes` of memory; all blocks are held
/// at once. kResourceExhausted, with the numbers, if not.
absl::Status check_generation_memory(const ModelConfig& config, const GenerationOptions& options,
                                     int64_t available_bytes);

/// Calibration windows that the original model writes itself: selection.samples() windows of
/// selection.sequence_length() tokens, as selection.generated() says (defaults filled in).
/// → [samples, sequence_length] int64. kResourceExhausted before anything is loaded where the
/// model does not fit into the memory that is free now; kInvalidArgument for weights that are not
/// finite; kCancelled when `stop` is requested.
absl::StatusOr<torch::Tensor> generated_windows(const ModelFolder& model,
                                                const v1::DataSelection& selection, uint64_t seed,
                                                std::stop_token stop);

}  // namespace qaas
