#include "workers/engine/model/compute_type.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace qaas {

torch::ScalarType training_compute_type() {
#if defined(__x86_64__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  // Leaf 7, sub-leaf 1: EAX bit 5 is AVX512-BF16; sub-leaf 0: EDX bit 22 is AMX-BF16.
  if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & (1u << 5)) != 0) {
    return torch::kBFloat16;
  }
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & (1u << 22)) != 0) {
    return torch::kBFloat16;
  }
#endif
  return torch::kFloat32;
}

}  // namespace qaas
