#include "workers/engine/kernels/row_kernels_loops.h"

namespace qaas::kernels {

const RowKernels kAvx2RowKernels = make_row_kernels();

}  // namespace qaas::kernels
