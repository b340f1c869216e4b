#pragma once

/// Which of the compiled-in variants of a kernel this CPU can run. Variants give the same bytes, so
/// only speed depends on it.
namespace qaas::kernels {

enum class InstructionSet { kGeneric, kAvx2, kAvx512 };

/// The widest one this CPU and this build support; looked up once.
InstructionSet best_instruction_set();

/// Whether this CPU and this build can run `set`.
bool supports(InstructionSet set);

/// "generic", "avx2", "avx512": for manifests and logs.
const char* instruction_set_name(InstructionSet set);

}  // namespace qaas::kernels
