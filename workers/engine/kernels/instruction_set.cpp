#include "workers/engine/kernels/instruction_set.h"

namespace qaas::kernels {

bool supports(InstructionSet set) {
  switch (set) {
    case InstructionSet::kGeneric:
      return true;
#if defined(QAAS_KERNELS_X86)
    case InstructionSet::kAvx2:
      return __builtin_cpu_supports("avx2") != 0;
    case InstructionSet::kAvx512:
      return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
             __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
#else
    case InstructionSet::kAvx2:
    case InstructionSet::kAvx512:
      return false;
#endif
  }
  return false;
}

InstructionSet best_instruction_set() {
  static const InstructionSet best = supports(InstructionSet::kAvx512) ? InstructionSet::kAvx512
                                     : supports(InstructionSet::kAvx2) ? InstructionSet::kAvx2
                                                                       : InstructionSet::kGeneric;
  return best;
}

const char* instruction_set_name(InstructionSet set) {
  switch (set) {
    case InstructionSet::kGeneric:
      return "generic";
    case InstructionSet::kAvx2:
      return "avx2";
    case InstructionSet::kAvx512:
      return "avx512";
  }
  return "unknown";
}

}  // namespace qaas::kernels
