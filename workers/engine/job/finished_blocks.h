#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "workers/engine/job/block_checkpoints.h"
#include "workers/engine/job/reporter.h"
#include "workers/engine/quant/quantized_block.h"

namespace qaas {

/// The blocks a run has finished, stage by stage. Each is in its checkpoint file; a run whose later
/// stages need all of them at once keeps them in memory too. Not thread-safe.
class FinishedBlocks {
 public:
  enum class Keep { kOnDisk, kInMemory };

  /// The arguments must outlive it.
  FinishedBlocks(const BlockCheckpoints& checkpoints, Reporter& reporter, int64_t count, Keep keep);

  /// Looks what an earlier attempt left of `stage`, warning of damaged files and of other hosts. A
  /// block that is there counts as finished; of the end-to-end stage, only if all are there.
  void recover(BlockCheckpoints::Stage stage);

  bool has(BlockCheckpoints::Stage stage, int64_t index) const;

  /// Writes the block's checkpoint and announces it. A block of the end-to-end stage takes the
  /// place of the block-wise one.
  /// `curve` is of the training that made it, where it was trained on its own.
  absl::Status put(BlockCheckpoints::Stage stage, int64_t index, QuantizedBlock block,
                   const std::optional<v1::TrainingCurve>& curve);

  /// The curve a recovered block came with, or that of `put`.
  const std::optional<v1::TrainingCurve>& curve(BlockCheckpoints::Stage stage,
                                                int64_t index) const {
    return finished_.at(stage).at(index);
  }

  /// Block `index` after the last stage that finished it. kDataLoss if its file went bad since.
  absl::StatusOr<QuantizedBlock> get(int64_t index) const;

  int64_t count() const { return count_; }
  /// A checkpoint of another host is taken: warns, once.
  void note_other_host();
  /// Whether one was.
  bool other_host() const { return other_host_; }

 private:
  const BlockCheckpoints& checkpoints_;
  Reporter& reporter_;
  int64_t count_;
  Keep keep_;
  bool other_host_ = false;
  std::map<BlockCheckpoints::Stage, std::map<int64_t, std::optional<v1::TrainingCurve>>> finished_;
  std::map<int64_t, QuantizedBlock> kept_;
};

}  // namespace qaas
