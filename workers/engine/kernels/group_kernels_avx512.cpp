#include "workers/engine/kernels/group_kernels_loops.h"

namespace qaas::kernels {

const GroupKernels kAvx512GroupKernels = make_group_kernels();

}  // namespace qaas::kernels
