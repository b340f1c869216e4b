#pragma once

#include "workers/engine/kernels/elementary.h"
#include "workers/engine/kernels/row_kernels.h"
#include "workers/engine/kernels/simd.h"

/// Body of TypedRowKernels::distillation, compiled once per instruction set by the files that
/// include row_kernels_loops.h.
namespace qaas::kernels {
namespace {

/// What the gradient of one row needs beside its logits. u and v are the student's and the
/// teacher's logits, less their largest, over the temperature.
struct DistilledRow {
  float top_student = 0, top_teacher = 0;  ///< largest logits
  float heat = 1;                          ///< 1 / temperature
  float inverse_student = 0;               ///< 1 / sum(e^u): q = e^u * this
  float inverse_teacher = 0;               ///< 1 / sum(e^v): p = e^v * this
  float inverse_hard = 0;                  ///< 1 / sum(e^(logit - top_student))
  float offset = 0;                        ///< ln(p / q) = (v - u) - offset
  float reverse_kl = 0;                    ///< sum(q ln(q / p))
  float student_to_mixture = 0;            ///< sum(q ln(q / m))
};

/// -ln(beta + (1 - beta) / ratio) = ln(p / m) with ratio = p / q.
QAAS_INLINE Floats teacher_over_mixture(Floats ratio, float beta) {
  return -logarithm(broadcast(1.0f - beta) / ratio + beta);
}
/// ln(q / m).
QAAS_INLINE Floats student_over_mixture(Floats ratio, float beta) {
  return -logarithm(ratio * beta + (1.0f - beta));
}

/// d loss / d logit of one vector: `soft` multiplies all terms but the hard one.
QAAS_INLINE Floats distillation_gradient(const Distillation& terms, const DistilledRow& row,
                                         float soft, float hard, Floats logit, Floats teacher) {
  const Floats x = logit - row.top_student;
  const Floats u = x * row.heat;
  const Floats v = (teacher - row.top_teacher) * row.heat;
  const Floats exponential_u = exponential(u);
  const Floats q = exponential_u * row.inverse_student;
  Floats gradient = {};
  if (terms.forward_kl != 0) {
    gradient += (q - exponential(v) * row.inverse_teacher) * terms.forward_kl;
  }
  if (terms.reverse_kl != 0) {
    gradient += q * (row.offset - (v - u) - row.reverse_kl) * terms.reverse_kl;
  }
  if (terms.jensen_shannon != 0) {
    const Floats excess =
        student_over_mixture(exponential(v - u - row.offset), terms.beta) - row.student_to_mixture;
    gradient += q * excess * (terms.jensen_shannon * (1.0f - terms.beta));
  }
  gradient *= soft;
  if (terms.cross_entropy != 0) {
    const Floats e = row.heat == 1.0f ? exponential_u : exponential(x);
    gradient += e * (row.inverse_hard * hard);
  }
  return gradient;
}

template <class T>
QAAS_INLINE float largest(const T* row, int64_t cols) {
  Floats most[kParts];
  for (int p = 0; p < kParts; ++p) most[p] = broadcast(-__builtin_inff());
  for_each_part(cols, [&](int64_t c, int p, auto n) {
    const Floats x = load_first(row + c, n);
    most[p] = first_lanes(x > most[p] ? x : most[p], n, most[p]);
  });
  return max_lanes(most);
}

template <class T>
QAAS_LOOP void distillation_loop(int64_t rows, int64_t cols, const T* logits, const T* teacher,
                                 const int64_t* targets, const float* row_weights,
                                 const Distillation& terms, float grad_scale, float* losses,
                                 T* grad) {
  const float heat = 1.0f / terms.temperature;
  const bool heated_hard = terms.cross_entropy != 0 && heat != 1.0f;
  for (int64_t r = 0; r < rows; ++r) {
    const T* student_row = logits + r * cols;
    const T* teacher_row = teacher + r * cols;
    DistilledRow row{.top_student = largest(student_row, cols),
                     .top_teacher = largest(teacher_row, cols),
                     .heat = heat};
    // 1. Sums of both exponentials, and of the gap v - u under both.
    Floats student_sum[kParts] = {}, teacher_sum[kParts] = {}, hard_sum[kParts] = {};
    Floats student_gap[kParts] = {}, teacher_gap[kParts] = {}, teacher_level[kParts] = {};
    for_each_part(cols, [&](int64_t c, int p, auto n) {
      const Floats x = load_first(student_row + c, n) - row.top_student;
      const Floats u = x * heat;
      const Floats v = (load_first(teacher_row + c, n) - row.top_teacher) * heat;
      const Floats of_student = first_lanes(exponential(u), n, Floats{});
      const Floats of_teacher = first_lanes(exponential(v), n, Floats{});
      student_sum[p] += of_student;
      teacher_sum[p] += of_teacher;
      student_gap[p] += of_student * (v - u);
      teacher_gap[p] += of_teacher * (v - u);
      teacher_level[p] += of_teacher * v;
      if (heated_hard) hard_sum[p] += first_lanes(exponential(x), n, Floats{});
    });
    const float sum_student = sum_lanes(student_sum), sum_teacher = sum_lanes(teacher_sum);
    const float sum_hard = heated_hard ? sum_lanes(hard_sum) : sum_student;
    const double log_student = __builtin_log(static_cast<double>(sum_student));
    const double log_teacher = __builtin_log(static_cast<double>(sum_teacher));
    row.inverse_student = 1.0f / sum_student;
    row.inverse_teacher = 1.0f / sum_teacher;
    row.inverse_hard = 1.0f / sum_hard;
    row.offset = static_cast<float>(log_teacher - log_student);
    const double offset = log_teacher - log_student;
    const double forward = sum_lanes(teacher_gap) / static_cast<double>(sum_teacher) - offset;
    const double reverse = offset - sum_lanes(student_gap) / static_cast<double>(sum_student);
    const double entropy =
        log_teacher - sum_lanes(teacher_level) / static_cast<double>(sum_teacher);
    row.reverse_kl = static_cast<float>(reverse);
    // 2. Divergences from the mixture.
    float teacher_to_mixture = 0;
    if (terms.jensen_shannon != 0) {
      Floats from_teacher[kParts] = {}, from_student[kParts] = {};
      for_each_part(cols, [&](int64_t c, int p, auto n) {
        const Floats u = (load_first(student_row + c, n) - row.top_student) * heat;
        const Floats v = (load_first(teacher_row + c, n) - row.top_teacher) * heat;
        const Floats ratio = exponential(v - u - row.offset);
        const Floats towards_teacher = exponential(v) * teacher_over_mixture(ratio, terms.beta);
        const Floats towards_student = exponential(u) * student_over_mixture(ratio, terms.beta);
        from_teacher[p] += first_lanes(towards_teacher, n, Floats{});
        from_student[p] += first_lanes(towards_student, n, Floats{});
      });
      teacher_to_mixture = sum_lanes(from_teacher) * row.inverse_teacher;
      row.student_to_mixture = sum_lanes(from_student) * row.inverse_student;
    }
    // 3. The loss.
    const int64_t target = targets[r];
    const Floats target_logit = broadcast(load_first(student_row + target, 1)[0]);
    const Floats target_teacher = broadcast(load_first(teacher_row + target, 1)[0]);
    const double mixed = terms.beta * static_cast<double>(teacher_to_mixture) +
                         (1.0 - terms.beta) * static_cast<double>(row.student_to_mixture);
    const double hard = __builtin_log(static_cast<double>(sum_hard)) +
                        (static_cast<double>(row.top_student) - target_logit[0]);
    const float weight = row_weights == nullptr ? 1.0f : row_weights[r];
    losses[r] = static_cast<float>(
        weight * (terms.forward_kl * forward + terms.reverse_kl * reverse +
                  terms.jensen_shannon * mixed + terms.teacher_entropy * entropy) +
        terms.cross_entropy * hard);
    // 4. Its gradient; the target's last, since its logit may be overwritten.
    const float soft_scale = grad_scale * weight * heat;
    const float hard_scale = grad_scale * terms.cross_entropy;
    T* to = grad + r * cols;
    const Floats at_target =
        distillation_gradient(terms, row, soft_scale, hard_scale, target_logit, target_teacher);
    for_each_part(cols, [&](int64_t c, int, auto n) {
      store_first(
          to + c,
          distillation_gradient(terms, row, soft_scale, hard_scale, load_first(student_row + c, n),
                                load_first(teacher_row + c, n)),
          n);
    });
    store_first(to + target, at_target - hard_scale, 1);
  }
}

}  // namespace
}  // namespace qaas::kernels
