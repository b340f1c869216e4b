#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>

#include <absl/status/status.h>

#include "storage/checkpoint/model_folder.h"

namespace qaas {

struct RotationOptions {
  uint64_t seed = 2;  ///< of the RandomRotation
};

/// Parts of the model that are done, of all: the embedding, each block, the head.
using RotationProgress = std::function<void(int64_t done, int64_t count)>;

/// Writes to `folder` (created, or empty) a model that computes the same function in
/// a residual stream turned by a RandomRotation Q of hidden_size (QuaRot, arXiv 2404.00456, section
/// 4; computational invariance, SliceGPT, arXiv 2401.15024). Outliers of single channels are spread
/// over all of them, in the stream and in the weights that read it.
///
/// With rows as tokens: the stream h becomes h·Q, so embedding E·Q; readers (q, k, v, gate, up,
/// head) W·diag(g)·Q with g the weight of the norm before them, which becomes ones; writers (o,
/// down) Qᵀ·W. All tensors are F32: rounding them to 16 bits would add an error of its own. A tied
/// head is written as a tensor of its own (it absorbs the final norm) and config.json says so.
///
/// One part of the model is worked on at a time, and what is written stands in a mapped file. Other
/// files of the model's folder are copied; the folder is complete, and only then accepted by
/// ModelFolder::open, once this returns OK. Same model, seed and machine, same bytes.
/// kInvalidArgument names a tensor with values that are not finite or a part unknown to this
/// scheme; kAlreadyExists if `folder` holds something; kCancelled when `stop` is requested;
/// kResourceExhausted when the disk is full.
absl::Status rotate_checkpoint(const ModelFolder& model, const std::filesystem::path& folder,
                               const RotationOptions& options, const RotationProgress& progress,
                               std::stop_token stop);

}  // namespace qaas
