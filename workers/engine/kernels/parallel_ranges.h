#pragma once

#include <algorithm>
#include <cstdint>

namespace qaas::kernels {

/// Cuts [0, count) into at most `threads` ranges of at least `smallest` and calls body(begin, end)
/// for each, on OpenMP's standing threads: LibTorch uses the same pool, so none is created here.
/// body must not throw, and its result must not depend on where the cuts fall.
template <class Body>
void parallel_ranges(int64_t count, int64_t smallest, int threads, const Body& body) {
  const int64_t ranges = std::min<int64_t>(threads, count / std::max<int64_t>(1, smallest));
  if (ranges <= 1) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
#pragma omp parallel for num_threads(static_cast <int>(ranges)) schedule(static, 1)
  for (int64_t r = 0; r < ranges; ++r) body(count * r / ranges, count * (r + 1) / ranges);
}

}  // namespace qaas::kernels
