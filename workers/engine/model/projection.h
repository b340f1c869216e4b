#pragma once

#include <memory>

#include <torch/torch.h>

namespace qaas {

/// y = x·Wᵀ without bias: the one place where a model's weights change form
/// (dense → fake-quantized → packed) during a job. The model code above knows nothing of it.
class Projection : public torch::nn::Module {
 public:
  /// x: [tokens, in] in the compute type → [tokens, out] in the same type.
  virtual torch::Tensor forward(const torch::Tensor& x) = 0;

  virtual int64_t output_size() const = 0;

  /// The weight forward multiplies with, float32 [out, in], without gradient.
  virtual torch::Tensor effective_weight() = 0;

  /// Rows first .. first + count of it, [count, in]; cheaper where the whole need not exist.
  virtual torch::Tensor effective_rows(int64_t first, int64_t count) {
    return effective_weight().narrow(0, first, count);
  }

  /// The projection that holds the weight, where this one only changes its input; else null.
  virtual std::shared_ptr<Projection> wrapped() const { return nullptr; }
};

/// `projection`, or what it wraps, as a `Kind` (DenseProjection, ...); null if it is of another.
template <class Kind>
std::shared_ptr<Kind> weight_as(const std::shared_ptr<Projection>& projection) {
  const std::shared_ptr<Projection> wrapped = projection->wrapped();
  return std::dynamic_pointer_cast<Kind>(wrapped != nullptr ? wrapped : projection);
}

/// A plain weight matrix. Registered as "weight".
class DenseProjection : public Projection {
 public:
  /// weight: float32 [out, in].
  explicit DenseProjection(torch::Tensor weight);
  torch::Tensor forward(const torch::Tensor& x) override;
  int64_t output_size() const override { return weight_.size(0); }
  torch::Tensor effective_weight() override { return weight_.detach(); }
  const torch::Tensor& weight() const { return weight_; }

 private:
  torch::Tensor weight_;   // [out, in] float32
  torch::Tensor compute_;  // weight_ in the last compute type asked for
};

}  // namespace qaas
