#include "workers/engine/eval/block_pass.h"

#include <algorithm>

#include <absl/status/status.h>

namespace qaas {
namespace {

/// Enough tokens at a time to keep the products efficient, few enough to stay in the caches.
constexpr int64_t kTokensAtATime = 1024;

/// Calls visit(ids [sequences, length], rows [sequences, length, dim]) with views of a stream's
/// rows, about kTokensAtATime tokens at a time.
template <class Visit>
absl::Status for_each_batch(const std::vector<SequenceGroup>& groups,
                            const std::vector<torch::Tensor>& streams, const std::stop_token& stop,
                            const Visit& visit) {
  for (size_t g = 0; g < groups.size(); ++g) {
    int64_t row = 0;
    for (const torch::Tensor& ids : groups[g]) {
      const int64_t sequences = ids.size(0), length = ids.size(1);
      const int64_t batch = std::max<int64_t>(1, kTokensAtATime / length);
      for (int64_t first = 0; first < sequences; first += batch) {
        if (stop.stop_requested()) return absl::CancelledError("scoring was stopped");
        const int64_t count = std::min(batch, sequences - first);
        visit(ids.narrow(0, first, count),
              streams[g].narrow(0, row, count * length).view({count, length, -1}));
        row += count * length;
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<torch::Tensor>> hidden_states(const BlockwiseModel& model,
                                                         const std::vector<SequenceGroup>& groups,
                                                         const PassOptions& options,
                                                         std::stop_token stop) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> streams;  // [tokens, dim] float32 each
  for (const SequenceGroup& group : groups) {
    int64_t tokens = 0;
    for (const torch::Tensor& ids : group) tokens += ids.numel();
    const std::vector<int64_t> sizes = {tokens, model.ends.embedding.size(1)};
    if (!options.allocate) {
      streams.push_back(torch::empty(sizes));
      continue;
    }
    absl::StatusOr<torch::Tensor> stream = options.allocate(sizes);
    if (!stream.ok()) return stream.status();
    streams.push_back(*std::move(stream));
  }

  absl::Status status = for_each_batch(groups, streams, stop,
                                       [&](const torch::Tensor& ids, const torch::Tensor& rows) {
                                         rows.copy_(embed(model.ends, ids));
                                       });
  if (!status.ok()) return status;
  for (int64_t i = 0; i < model.block_count; ++i) {
    if (stop.stop_requested()) return absl::CancelledError("scoring was stopped");
    absl::StatusOr<DecoderBlock> block = model.block(i);
    if (!block.ok()) return block.status();
    status =
        for_each_batch(groups, streams, stop, [&](const torch::Tensor&, const torch::Tensor& rows) {
          rows.copy_((*block)->forward(rows, model.rope, torch::kFloat32));
        });
    if (!status.ok()) return status;
    options.progress(static_cast<double>(i + 1) / static_cast<double>(model.block_count + 1));
  }
  status =
      for_each_batch(groups, streams, stop, [&](const torch::Tensor&, const torch::Tensor& rows) {
        const torch::Tensor flat = rows.view({-1, rows.size(2)});
        flat.copy_(final_hidden(model.ends, flat));
      });
  if (!status.ok()) return status;
  return streams;
}

}  // namespace qaas
