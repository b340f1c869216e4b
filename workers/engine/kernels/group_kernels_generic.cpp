#include "workers/engine/kernels/group_kernels_loops.h"

namespace qaas::kernels {

const GroupKernels& generic_group_kernels() {
  static constexpr GroupKernels kTable = make_group_kernels();
  return kTable;
}

}  // namespace qaas::kernels
