#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "workers/engine/model/decoder.h"

namespace qaas {

/// The original model, as distillation needs it: never in memory beside the student. Its blocks
/// run once, streamed, over all training windows; what they leave is kept, and logits are made
/// again from it a chunk of tokens at a time. Exact, unlike a cache of the largest logits, and for
/// usual vocabularies smaller than one.
struct Teacher {
  const ModelEnds& ends;  ///< final norm and head
  /// Output of its last block for every window of the training ids, float32 or bfloat16
  /// [windows, seq, dim]; may lie in a mapped file.
  torch::Tensor residual;
};

/// Block `index` of the teacher, made when asked for and dropped when done.
using TeacherBlocks = std::function<absl::StatusOr<DecoderBlock>(int64_t index)>;

/// Fills `residual` [windows, seq, dim] with what `block_count` blocks make of ids [windows, seq]:
/// one block at a time over all windows, in place, products in `compute`. As bfloat16 it is rounded
/// after every block, half the room at the precision bfloat16 models are served with. kCancelled
/// when `stop` is requested; a failure of `blocks` is handed on.
absl::Status run_teacher(const ModelEnds& ends, int64_t block_count, const TeacherBlocks& blocks,
                         const torch::Tensor& ids, const RopeTable& rope, torch::ScalarType compute,
                         std::stop_token stop, torch::Tensor& residual);

/// -ln of the probability the teacher gives each next token of ids[first, last):
/// [last - first, seq - 1] float32.
torch::Tensor teacher_losses(const Teacher& teacher, const torch::Tensor& ids, int64_t first,
                             int64_t last, torch::ScalarType compute);

}  // namespace qaas
