#pragma once

#include <torch/torch.h>

#include "workers/engine/kernels/quantization_kernels.h"

/// From a tensor's type, known at run time, to the element types the CPU kernels are compiled for.
namespace qaas {

/// Calls body(T{}) with the kernels' element type for `type`: float or kernels::Bfloat16Bits.
template <class Body>
void with_element_type(torch::ScalarType type, const Body& body) {
  if (type == torch::kBFloat16) {
    body(kernels::Bfloat16Bits{});
  } else {
    TORCH_CHECK(type == torch::kFloat32, "products run in float32 or bfloat16, got ", type);
    body(float{});
  }
}

/// The tensor's elements as the kernels take them; T must be of its type.
template <class T>
T* elements(const torch::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

}  // namespace qaas
