#include "workers/engine/kernels/group_kernels_loops.h"

namespace qaas::kernels {

const GroupKernels kGenericGroupKernels = make_group_kernels();

}  // namespace qaas::kernels
