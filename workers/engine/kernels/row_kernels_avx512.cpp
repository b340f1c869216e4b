#include "workers/engine/kernels/row_kernels_loops.h"

namespace qaas::kernels {

const RowKernels& avx512_row_kernels() {
  static constexpr RowKernels kTable = make_row_kernels();
  return kTable;
}

}  // namespace qaas::kernels
