#pragma once

#include <cstdint>
#include <optional>

#include <torch/torch.h>

namespace qaas {

/// A Hadamard matrix (entries ±1, H·Hᵀ = order · I), float64 [order, order]: order 1, 2, q + 1 for
/// a prime q = 3 mod 4 (Paley's first construction, 4, 8, 12, 20, 24, ...), 2·(q + 1) for a prime
/// q = 1 mod 4 (his second, 12, 28, 36, 60, ...), and twice any of these. None for other orders,
/// even where one is known to exist.
std::optional<torch::Tensor> hadamard_matrix(int64_t order);

/// A random orthogonal matrix Q [size, size] that spreads each coordinate over all others:
///   Q = diag(±1) · (H ⊗ M),
/// H the normalised Hadamard matrix of the largest usable power of two (Sylvester's), M the
/// normalised hadamard_matrix of what is left of `size` (4·r, 8·r, ... for the odd part r of size)
/// or, where there is none, a random orthogonal r × r. Immutable, safe from several threads.
class RandomRotation {
 public:
  /// Same size and seed, same matrix.
  RandomRotation(int64_t size, uint64_t seed);

  /// out = rows · diag(scale) · Q, computed in float64 a chunk of rows at a time.
  /// rows: [count, size] of any floating type; scale: [size], undefined for ones;
  /// out: [count, size] float32, not overlapping rows.
  void apply(const torch::Tensor& rows, const torch::Tensor& scale, torch::Tensor out) const;

  /// Whether all entries of Q have one magnitude, 1 / sqrt(size).
  bool is_hadamard() const { return is_hadamard_; }

 private:
  torch::Tensor signs_;  // [size] float64
  torch::Tensor core_;   // M, [core, core] float64, orthogonal
  int64_t size_ = 0;
  bool is_hadamard_ = true;
};

}  // namespace qaas
