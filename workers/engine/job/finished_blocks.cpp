#include "workers/engine/job/finished_blocks.h"

#include <utility>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

namespace qaas {
namespace {

using Stage = BlockCheckpoints::Stage;

}  // namespace

FinishedBlocks::FinishedBlocks(const BlockCheckpoints& checkpoints, Reporter& reporter,
                               int64_t count, Keep keep)
    : checkpoints_(checkpoints), reporter_(reporter), count_(count), keep_(keep) {}

void FinishedBlocks::recover(Stage stage) {
  std::map<int64_t, BlockCheckpoints::Loaded> found;
  for (int64_t i = 0; i < count_; ++i) {
    auto loaded = checkpoints_.load(stage, i);
    if (!loaded.ok()) {
      reporter_.warn(absl::StrCat(loaded.status().message(), "; training again"));
    } else if (loaded->has_value()) {
      found[i] = **std::move(loaded);
    }
  }
  // End-to-end training ends for all blocks at once: some of them are of no use.
  if (stage == Stage::kEndToEnd && static_cast<int64_t>(found.size()) < count_) return;
  for (auto& [index, loaded] : found) {
    if (loaded.other_host) note_other_host();
    finished_[stage][index] = std::move(loaded.curve);
    if (keep_ == Keep::kInMemory) kept_[index] = std::move(loaded.block);
  }
}

void FinishedBlocks::note_other_host() {
  if (std::exchange(other_host_, true)) return;
  reporter_.warn(
      "resuming from a machine with other threads or compute type: the artifact will not be the "
      "one an uninterrupted run gives, byte for byte");
}

bool FinishedBlocks::has(Stage stage, int64_t index) const {
  const auto found = finished_.find(stage);
  return found != finished_.end() && found->second.contains(index);
}

absl::Status FinishedBlocks::put(Stage stage, int64_t index, QuantizedBlock block,
                                 const std::optional<v1::TrainingCurve>& curve) {
  absl::StatusOr<std::string> file = checkpoints_.save(stage, index, block, curve);
  if (!file.ok()) return file.status();
  finished_[stage][index] = curve;
  if (keep_ == Keep::kInMemory) kept_[index] = std::move(block);
  v1::EngineEvent event;
  event.mutable_checkpoint_written()->set_file(*std::move(file));
  event.mutable_checkpoint_written()->set_description(
      absl::StrFormat("%s, block %d of %d",
                      stage == Stage::kBlockTraining ? "block training" : "end-to-end training",
                      index + 1, count_));
  reporter_.send(event);
  return absl::OkStatus();
}

absl::StatusOr<QuantizedBlock> FinishedBlocks::get(int64_t index) const {
  if (const auto kept = kept_.find(index); kept != kept_.end()) return kept->second;
  const Stage stage = has(Stage::kEndToEnd, index) ? Stage::kEndToEnd : Stage::kBlockTraining;
  auto loaded = checkpoints_.load(stage, index);
  if (!loaded.ok()) return absl::DataLossError(loaded.status().message());
  if (!loaded->has_value()) {
    return absl::DataLossError(absl::StrCat("checkpoint of block ", index + 1, " is gone"));
  }
  return std::move((*loaded)->block);
}

}  // namespace qaas
