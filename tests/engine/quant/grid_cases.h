#pragma once

#include <cmath>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "workers/engine/quant/affine.h"

namespace qaas::testing {

inline constexpr int64_t kRows = 16, kCols = 192;

/// Every width, groups of 32 and 64 and the whole row, symmetric and not.
inline std::vector<AffineGrid> all_grids() {
  std::vector<AffineGrid> grids;
  for (const int bits : {2, 3, 4, 8}) {
    for (const int64_t group_size : {int64_t{32}, int64_t{64}, kCols}) {
      for (const bool symmetric : {false, true}) grids.push_back({bits, group_size, symmetric});
    }
  }
  return grids;
}

inline std::string grid_name(const AffineGrid& grid) {
  std::string name = "w";
  name += std::to_string(grid.bits) + "_g" + std::to_string(grid.group_size);
  return name + (grid.symmetric ? "_symmetric" : "_asymmetric");
}

/// A weight with rows that are all zero, of one sign, tiny and huge.
inline torch::Tensor random_weight(int64_t seed) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  torch::Tensor weight = torch::randn({kRows, kCols}) * 0.05;
  weight[0].zero_();
  weight[1].abs_();
  weight[2].abs_().neg_();
  weight[3].mul_(1e-6);
  weight[4].mul_(1e7);
  return weight;
}

/// Weight and masters as training may leave them: scales drifted, some below the smallest in use
/// or negative; zero points between and outside the codes; weights on the ties between two codes.
struct TrainedState {
  torch::Tensor weight;
  Qparams qparams;
};
inline TrainedState random_state(const AffineGrid& grid, int64_t seed) {
  TrainedState state{.weight = random_weight(seed)};
  state.qparams = min_max_qparams(state.weight, grid);
  torch::Tensor& scale = state.qparams.scale;
  scale = scale * torch::exp(0.3 * torch::randn_like(scale));
  scale[5].fill_(3e-5);
  scale[6].fill_(-0.01);
  scale[7].fill_(3e4);
  if (!grid.symmetric) {
    torch::Tensor& zero = state.qparams.zero_point;
    zero = zero + 0.3 * static_cast<double>(grid.max_code()) * torch::randn_like(zero);
    zero[8].fill_(-2.5);
    zero[9].fill_(static_cast<double>(grid.max_code()) + 3.25);
    zero[10].fill_(1.5);  // half to even: 2
  }
  const torch::Tensor step =
      effective_scale(scale).repeat_interleave(grid.group_size, 1);  // [rows, cols]
  const torch::Tensor tie = (torch::floor(state.weight / step) + 0.5) * step;
  state.weight = torch::where(torch::rand_like(tie) < 0.1, tie, state.weight).contiguous();
  return state;
}

}  // namespace qaas::testing
