#include "workers/engine/model/projection.h"

#include <utility>

namespace qaas {

DenseProjection::DenseProjection(torch::Tensor weight) {
  TORCH_CHECK(weight.dim() == 2 && weight.scalar_type() == torch::kFloat32,
              "a dense projection wants a float32 matrix, got ", weight.sizes(), " of ",
              weight.scalar_type());
  weight_ = register_parameter("weight", std::move(weight), /*requires_grad=*/false);
}

torch::Tensor DenseProjection::forward(const torch::Tensor& x) {
  if (x.scalar_type() == weight_.scalar_type()) return torch::mm(x, weight_.t());
  if (!compute_.defined() || compute_.scalar_type() != x.scalar_type()) {
    compute_ = weight_.detach().to(x.scalar_type());
  }
  return torch::mm(x, compute_.t());
}

}  // namespace qaas
