#include "workers/engine/kernels/instruction_set.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "workers/engine/kernels/group_kernels.h"
#include "workers/engine/kernels/row_kernels.h"

/// Every variant this CPU can run gives the same bytes as the generic one.
namespace qaas::kernels {
namespace {

struct Variant {
  const GroupKernels* groups;
  const RowKernels* rows;
};

Variant variant(InstructionSet set) {
#if defined(QAAS_KERNELS_X86)
  if (set == InstructionSet::kAvx512) return {&avx512_group_kernels(), &avx512_row_kernels()};
  if (set == InstructionSet::kAvx2) return {&avx2_group_kernels(), &avx2_row_kernels()};
#endif
  return {&generic_group_kernels(), &generic_row_kernels()};
}

/// Appends a value array's bytes.
template <class T>
void append(std::vector<uint8_t>& bytes, const std::vector<T>& values) {
  const auto* from = reinterpret_cast<const uint8_t*>(values.data());
  bytes.insert(bytes.end(), from, from + values.size() * sizeof(T));
}

class EveryInstructionSet : public testing::TestWithParam<InstructionSet> {
 protected:
  void SetUp() override {
    if (!supports(GetParam())) {
      GTEST_SKIP() << "this CPU or build has no " << instruction_set_name(GetParam());
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Sets, EveryInstructionSet,
                         testing::Values(InstructionSet::kAvx2, InstructionSet::kAvx512),
                         [](const auto& info) { return instruction_set_name(info.param); });

std::vector<uint8_t> group_results(const GroupKernels& kernels, int bits, int64_t group_size) {
  const int64_t groups = 37, size = groups * group_size;
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> raw_scale(groups), raw_zero(groups), scale(groups), zero(groups);
  std::vector<float> weight(size), grad(size);
  for (float& x : raw_scale) x = 0.2f * std::abs(normal(random));
  for (float& x : raw_zero) x = 4 * normal(random);
  for (float& x : weight) x = 0.3f * normal(random);
  for (float& x : grad) x = normal(random);
  weight[5] = 1e-40f;  // denormal
  weight[6] = INFINITY;
  std::vector<uint8_t> packed(size * bits / 8);
  for (uint8_t& x : packed) x = static_cast<uint8_t>(random());

  const Groups shape{groups, group_size, bits};
  std::vector<uint8_t> bytes;
  kernels.effective_qparams(raw_scale.data(), raw_zero.data(), groups, bits, scale.data(),
                            zero.data());
  append(bytes, scale);
  append(bytes, zero);
  std::vector<float> out(size), grad_scale(groups), grad_zero(groups);
  std::vector<Bfloat16Bits> half(size), grad_half(size);
  std::vector<uint8_t> codes(size);
  kernels.forward_f32(shape, weight.data(), scale.data(), zero.data(), out.data());
  append(bytes, out);
  kernels.forward_bf16(shape, weight.data(), scale.data(), zero.data(), half.data());
  append(bytes, half);
  std::vector<float> errors(groups);
  for (const float* importance : std::vector<const float*>{nullptr, out.data()}) {
    kernels.candidate_errors(group_size - 3, bits, grad.data(), importance, groups, scale.data(),
                             zero.data(), errors.data());
    append(bytes, errors);
  }
  kernels.quantize(shape, weight.data(), scale.data(), zero.data(), codes.data());
  append(bytes, codes);
  kernels.f32_to_bf16(grad.data(), size, grad_half.data());
  append(bytes, grad_half);
  kernels.bf16_to_f32(grad_half.data(), size, out.data());
  append(bytes, out);
  kernels.backward_f32(shape, weight.data(), scale.data(), zero.data(), grad.data(), out.data(),
                       grad_scale.data(), grad_zero.data());
  append(bytes, out);
  append(bytes, grad_scale);
  append(bytes, grad_zero);
  kernels.backward_bf16(shape, weight.data(), scale.data(), zero.data(), grad_half.data(),
                        out.data(), grad_scale.data(), grad_zero.data());
  append(bytes, grad_scale);
  kernels.dequantize_f32(shape, packed.data(), scale.data(), zero.data(), out.data());
  append(bytes, out);
  kernels.dequantize_bf16(shape, packed.data(), scale.data(), zero.data(), half.data());
  append(bytes, half);
  kernels.scale_gradient_f32(shape, packed.data(), zero.data(), grad.data(), grad_scale.data());
  append(bytes, grad_scale);
  kernels.scale_gradient_bf16(shape, packed.data(), zero.data(), grad_half.data(),
                              grad_scale.data());
  append(bytes, grad_scale);
  kernels.zero_point_gradient_f32(shape, scale.data(), grad.data(), grad_zero.data());
  append(bytes, grad_zero);
  kernels.zero_point_gradient_bf16(shape, scale.data(), grad_half.data(), grad_zero.data());
  append(bytes, grad_zero);
  append(bytes, std::vector<float>{kernels.sum_of_squares(grad.data(), size - 3)});
  std::vector<float> first(size), second(size);
  const AdamWFactors factors{.decay = 0.999f,
                             .beta1 = 0.9f,
                             .one_minus_beta1 = 0.1f,
                             .beta2 = 0.999f,
                             .one_minus_beta2 = 0.001f,
                             .second_correction = 0.03f,
                             .step_size = 0.01f,
                             .epsilon = 1e-8f};
  kernels.adamw(factors, size - 3, weight.data(), grad.data(), first.data(), second.data());
  append(bytes, weight);
  append(bytes, second);
  return bytes;
}

TEST_P(EveryInstructionSet, GroupKernelsGiveTheBytesOfTheGenericOnes) {
  for (int bits : {2, 3, 4, 8}) {
    for (int64_t group_size : {32, 64, 96, 768}) {
      EXPECT_EQ(group_results(*variant(GetParam()).groups, bits, group_size),
                group_results(generic_group_kernels(), bits, group_size))
          << bits << " bits, group " << group_size;
    }
  }
}

template <class T>
std::vector<uint8_t> row_results(const TypedRowKernels<T>& kernels,
                                 const std::vector<float>& values, const std::vector<T>& stored,
                                 int64_t dim) {
  const int64_t rows = 8;
  std::vector<uint8_t> bytes;
  std::vector<T> out(rows * dim), other(rows * dim);
  std::vector<float> inverse(rows), grad_x(rows * dim), grad_weight(dim);
  kernels.rms_norm_forward(rows, dim, values.data(), values.data() + 9, 1e-6f, out.data(),
                           inverse.data());
  append(bytes, out);
  append(bytes, inverse);
  kernels.rms_norm_input_gradient(rows, dim, values.data(), values.data() + 9, inverse.data(),
                                  stored.data(), values.data() + 3, grad_x.data());
  append(bytes, grad_x);
  kernels.rms_norm_weight_gradient(rows, dim, 0, dim, values.data(), inverse.data(), stored.data(),
                                   grad_weight.data());
  append(bytes, grad_weight);
  kernels.swiglu_forward(rows, dim, dim, stored.data(), stored.data() + 5, out.data());
  append(bytes, out);
  kernels.swiglu_backward(rows, dim, dim, stored.data(), stored.data() + 5, stored.data() + 7,
                          out.data(), other.data());
  append(bytes, out);
  append(bytes, other);
  std::vector<T> matrix(dim * dim), matrix_grad(dim * dim);
  kernels.softmax_causal_forward(0, dim, dim, 0.7f, stored.data(), matrix.data());
  append(bytes, matrix);
  kernels.softmax_causal_backward(0, dim, dim, 0.7f, matrix.data(), stored.data(),
                                  matrix_grad.data());
  append(bytes, matrix_grad);
  const int64_t even = dim / 2 * 2;
  kernels.rotate_head(even, values.data(), values.data() + 50, -1.0f, stored.data(), out.data());
  append(bytes, out);
  const std::vector<int64_t> targets(rows, dim / 2);
  std::vector<float> losses(rows);
  kernels.cross_entropy(rows, dim, stored.data(), targets.data(), 0.5f, losses.data(), out.data());
  append(bytes, losses);
  append(bytes, out);
  for (const Distillation& terms :
       {Distillation{.forward_kl = 0.5f, .reverse_kl = 0.25f, .cross_entropy = 0.5f},
        Distillation{.jensen_shannon = 1, .beta = 0.3f, .cross_entropy = 1, .temperature = 2}}) {
    kernels.distillation(rows, dim, stored.data(), stored.data() + 5, targets.data(),
                         values.data() + 11, terms, 0.5f, losses.data(), out.data());
    append(bytes, losses);
    append(bytes, out);
  }
  const ActivationGroups groups{.groups = rows, .size = dim, .largest_level = 7, .clip = 0.6f};
  kernels.quantize_activations(groups, stored.data(), out.data());
  append(bytes, out);
  std::vector<float> grad_clip(rows);
  kernels.quantize_activations_backward(groups, stored.data(), stored.data() + 7, out.data(),
                                        grad_clip.data());
  append(bytes, grad_clip);
  append(bytes, out);
  return bytes;
}

TEST_P(EveryInstructionSet, RowKernelsGiveTheBytesOfTheGenericOnes) {
  std::mt19937 random(12);
  std::normal_distribution<float> normal(0, 3);
  for (int64_t dim : {2, 31, 48, 100, 144}) {
    std::vector<float> values(dim * dim + 8 * dim + 100);
    for (float& x : values) x = normal(random);
    std::vector<Bfloat16Bits> stored(values.size());
    generic_group_kernels().f32_to_bf16(values.data(), static_cast<int64_t>(values.size()),
                                        stored.data());
    const RowKernels& rows = *variant(GetParam()).rows;
    EXPECT_EQ(row_results(rows.f32, values, values, dim),
              row_results(generic_row_kernels().f32, values, values, dim))
        << dim;
    EXPECT_EQ(row_results(rows.bf16, values, stored, dim),
              row_results(generic_row_kernels().bf16, values, stored, dim))
        << dim;
  }
}

TEST(InstructionSet, TheBestOneIsSupportedAndNamed) {
  EXPECT_TRUE(supports(best_instruction_set()));
  EXPECT_TRUE(supports(InstructionSet::kGeneric));
  EXPECT_STREQ(instruction_set_name(InstructionSet::kGeneric), "generic");
  EXPECT_STREQ(instruction_set_name(InstructionSet::kAvx2), "avx2");
  EXPECT_STREQ(instruction_set_name(InstructionSet::kAvx512), "avx512");
}

}  // namespace
}  // namespace qaas::kernels
