#pragma once

#include <cstdint>
#include <optional>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "workers/engine/kernels/decoder_kernels.h"
#include "workers/engine/model/language_head.h"
#include "workers/engine/train/teacher.h"

namespace qaas {

/// What end-to-end training minimises, always as a mean over the predicted tokens (distillation
/// sheet, section 3). p and q are the teacher's and the student's next-token probabilities.
struct Objective {
  enum class Kind {
    kCrossEntropy,  ///< of the text's next token; needs no teacher
    kForwardKl,     ///< Σ p ln(p / q)
    kReverseKl,     ///< Σ q ln(q / p)
    kCakld,         ///< beta · reverse KL + (1 - beta) · forward KL (BitDistiller, 2402.10631)
    kJsd,           ///< beta KL(p‖m) + (1 - beta) KL(q‖m), m = beta p + (1 - beta) q
    kSoftCrossEntropy,  ///< -Σ p ln q: the gradient of forward KL
    kTsld,              ///< soft cross-entropy, weighted by token (TSLD, 2308.06744)
  };
  Kind kind = Kind::kCrossEntropy;
  /// p and q are softmax(logits / temperature), the loss is multiplied by its square.
  double temperature = 1;
  /// Share of the plain cross-entropy in the mix (1 - w) · distillation + w · cross-entropy, [0,
  /// 1].
  double cross_entropy_weight = 0;
  /// kJsd: in (0, 1), default 0.5. kCakld: in [0, 1], default the mean probability the teacher
  /// gives the tokens of the first `cakld_windows` windows.
  std::optional<double> beta;
  int64_t cakld_windows = 64;
  /// kTsld: within each window a token weighs softmax(teacher's cross-entropy / this), times the
  /// number of tokens, so that the weights' mean is one.
  double tsld_temperature = 10;

  bool needs_teacher() const { return kind != Kind::kCrossEntropy; }
};

/// kInvalidArgument, naming the field, if a value is out of its range.
absl::Status check_objective(const Objective& objective);

/// An objective over certain windows, with everything worked out that depends on the teacher alone.
class StudentLoss {
 public:
  /// ids: [windows, seq] int64. Products run in `compute`. kInvalidArgument as check_objective;
  /// kFailedPrecondition if the objective needs a teacher and there is none. `ends` (the student's)
  /// and the teacher must outlive the result.
  static absl::StatusOr<StudentLoss> create(const Objective& objective, const ModelEnds& ends,
                                            const Teacher* teacher, const torch::Tensor& ids,
                                            torch::ScalarType compute);

  /// Of windows `windows` ([count] int64, indices into ids), given the student's last block's
  /// output for them, residual [count, seq, dim] float32: the loss summed over their
  /// count · (seq - 1) targets, and d (sum · scale) / d residual.
  LanguageHead::Loss backward(const torch::Tensor& residual, const torch::Tensor& windows,
                              double scale) const;

  /// The sum alone.
  double evaluate(const torch::Tensor& residual, const torch::Tensor& windows) const;

  /// kCakld: the beta in use.
  double beta() const { return beta_; }

 private:
  StudentLoss(const ModelEnds& ends, const Teacher* teacher, const torch::Tensor& ids,
              torch::ScalarType compute);
  LanguageHead::LogitsLoss logits_loss(const torch::Tensor& windows, double scale) const;

  const Teacher* teacher_;
  torch::Tensor ids_;                        // [windows, seq] int64
  LanguageHead head_;                        // the student's
  std::optional<LanguageHead> own_teacher_;  // where the teacher's head is another one
  kernels::Distillation terms_;
  torch::Tensor token_weights_;  // [windows, seq - 1] float32; undefined: ones
  double beta_ = 0.5;
};

}  // namespace qaas
