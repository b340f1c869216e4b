#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "qaas/v1/measurements.pb.h"
#include "workers/engine/quant/quantized_block.h"
#include "workers/engine/train/end_to_end.h"

namespace qaas {

/// Files from which a later attempt resumes: one per finished block ("block-0003.safetensors"), one
/// per block after end-to-end training ("end-to-end-0003.safetensors") and, while that trains, its
/// state ("end-to-end-state.safetensors"). Each is written whole, synced and renamed, and carries
/// the fingerprint of the work it belongs to.
class BlockCheckpoints {
 public:
  /// What a checkpoint belongs to, and where its bytes were made.
  struct Identity {
    std::string fingerprint;  ///< of spec, model and engine: another one is never resumed from
    std::string host;         ///< threads and compute type: another one resumes with a warning
  };
  enum class Stage { kBlockTraining, kEndToEnd };

  BlockCheckpoints(std::filesystem::path folder, Identity identity);

  struct Loaded {
    QuantizedBlock block;
    bool other_host = false;  ///< made with other threads or compute type
    /// Of the training that made the block; a report of a resumed run has it too. Absent where the
    /// block was not trained on its own.
    std::optional<v1::TrainingCurve> curve;
  };
  /// nullopt if there is no such file or it belongs to other work; kInvalidArgument, naming it, if
  /// it is damaged.
  absl::StatusOr<std::optional<Loaded>> load(Stage stage, int64_t index) const;

  /// Returns the file's name.
  absl::StatusOr<std::string> save(Stage stage, int64_t index, const QuantizedBlock& block,
                                   const std::optional<v1::TrainingCurve>& curve) const;

  struct LoadedState {
    EndToEndState state;
    bool other_host = false;  ///< made with other threads or compute type
  };
  /// The state of a half-done end-to-end training, as load.
  absl::StatusOr<std::optional<LoadedState>> load_state() const;

  /// Replaces the state kept before. Returns the file's name.
  absl::StatusOr<std::string> save_state(const EndToEndState& state) const;

 private:
  std::filesystem::path folder_;
  Identity identity_;
};

}  // namespace qaas
