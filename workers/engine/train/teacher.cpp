#include "workers/engine/train/teacher.h"

#include <algorithm>

#include "workers/engine/model/language_head.h"

namespace qaas {
namespace {

/// Enough tokens at a time to keep the products efficient, few enough to stay in the caches.
constexpr int64_t kTokensAtATime = 1024;

/// Calls visit(first, last) over windows [0, count).
template <class Visit>
void for_window_runs(int64_t count, int64_t seq, const Visit& visit) {
  const int64_t run = std::max<int64_t>(1, kTokensAtATime / seq);
  for (int64_t first = 0; first < count; first += run) visit(first, std::min(first + run, count));
}

}  // namespace

absl::Status run_teacher(const ModelEnds& ends, int64_t block_count, const TeacherBlocks& blocks,
                         const torch::Tensor& ids, const RopeTable& rope, torch::ScalarType compute,
                         std::stop_token stop, torch::Tensor& residual) {
  const torch::NoGradGuard no_grad;
  const int64_t windows = ids.size(0), seq = ids.size(1);
  TORCH_CHECK(residual.dim() == 3 && residual.size(0) == windows && residual.size(1) == seq &&
                  residual.size(2) == ends.embedding.size(1),
              "room for the teacher's output is ", residual.sizes(), ", expected ", windows, " x ",
              seq, " x ", ends.embedding.size(1));
  for_window_runs(windows, seq, [&](int64_t first, int64_t last) {
    residual.slice(0, first, last).copy_(embed(ends, ids.slice(0, first, last)));
  });
  for (int64_t i = 0; i < block_count; ++i) {
    absl::StatusOr<DecoderBlock> block = blocks(i);
    if (!block.ok()) return block.status();
    if (stop.stop_requested()) return absl::CancelledError("running the teacher was stopped");
    for_window_runs(windows, seq, [&](int64_t first, int64_t last) {
      const torch::Tensor part = residual.slice(0, first, last);  // [run, seq, dim]
      part.copy_((*block)->forward(part.to(torch::kFloat32), rope, compute));
    });
  }
  return absl::OkStatus();
}

torch::Tensor teacher_losses(const Teacher& teacher, const torch::Tensor& ids, int64_t first,
                             int64_t last, torch::ScalarType compute) {
  const torch::NoGradGuard no_grad;
  const LanguageHead head(teacher.ends, compute);
  const int64_t seq = ids.size(1);
  torch::Tensor losses = torch::empty({last - first, seq - 1}, torch::kFloat32);
  for (int64_t w = first; w < last; ++w) {
    const torch::Tensor targets = ids[w].narrow(0, 1, seq - 1).unsqueeze(1);  // [seq - 1, 1]
    const torch::Tensor hidden = final_hidden(
        teacher.ends,
        teacher.residual[w].narrow(0, 0, seq - 1).to(torch::kFloat32));  // [seq - 1, dim]
    head.for_each_chunk(hidden, [&](int64_t at, const torch::Tensor& log_p) {
      const int64_t rows = log_p.size(0);
      losses[w - first]
          .narrow(0, at, rows)
          .copy_(-log_p.gather(1, targets.narrow(0, at, rows)).squeeze(1));
    });
  }
  return losses;
}

}  // namespace qaas
