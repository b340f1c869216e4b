// Writes the file that python_reads_safetensors.py expects: safetensors_sample PATH.
#include <array>
#include <cstdio>
#include <span>

#include "storage/checkpoint/safetensors.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::array<float, 6> weights = {0.5f, -1.25f, 3.0f, 1.024f, -0.0f, 65504.0f};
  const std::array<int64_t, 2> counts = {-1, int64_t{1} << 62};
  const std::array<uint16_t, 3> half = {0x3C00, 0xC000, 0x7BFF};
  const std::array<uint8_t, 3> bytes = {0, 127, 255};
  const absl::Status status = qaas::write_safetensors(
      argv[1],
      {{"weights", qaas::Dtype::kF32, {2, 3}, std::as_bytes(std::span(weights))},
       {"counts", qaas::Dtype::kI64, {2}, std::as_bytes(std::span(counts))},
       {"half", qaas::Dtype::kF16, {3}, std::as_bytes(std::span(half))},
       {"bytes", qaas::Dtype::kU8, {3}, std::as_bytes(std::span(bytes))}},
      {{"note", "grüße"}});
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
