#include "workers/engine/train/objective.h"

#include <cmath>

#include <absl/strings/str_cat.h>

#include "workers/engine/model/ops.h"

namespace qaas {
namespace {

using Kind = Objective::Kind;

kernels::Distillation terms_of(const Objective& objective, double beta) {
  const double share = 1.0 - objective.cross_entropy_weight;
  const auto soft = static_cast<float>(share * objective.temperature * objective.temperature);
  kernels::Distillation terms{.cross_entropy = static_cast<float>(objective.cross_entropy_weight),
                              .temperature = static_cast<float>(objective.temperature)};
  switch (objective.kind) {
    case Kind::kCrossEntropy:
      break;
    case Kind::kForwardKl:
      terms.forward_kl = soft;
      break;
    case Kind::kReverseKl:
      terms.reverse_kl = soft;
      break;
    case Kind::kCakld:
      terms.reverse_kl = soft * static_cast<float>(beta);
      terms.forward_kl = soft * static_cast<float>(1.0 - beta);
      break;
    case Kind::kJsd:
      terms.jensen_shannon = soft;
      terms.beta = static_cast<float>(beta);
      break;
    case Kind::kSoftCrossEntropy:
    case Kind::kTsld:
      terms.forward_kl = soft;
      terms.teacher_entropy = soft;
      break;
  }
  return terms;
}

}  // namespace

absl::Status check_objective(const Objective& objective) {
  const auto refuse = [](const char* field, double found, const char* accepted) {
    return absl::InvalidArgumentError(
        absl::StrCat("objective.", field, ": ", found, ", expected ", accepted));
  };
  if (!(objective.temperature > 0) || !std::isfinite(objective.temperature)) {
    return refuse("temperature", objective.temperature, "a positive number");
  }
  if (!(objective.cross_entropy_weight >= 0 && objective.cross_entropy_weight <= 1)) {
    return refuse("cross_entropy_weight", objective.cross_entropy_weight, "0 to 1");
  }
  if (!(objective.tsld_temperature > 0) || !std::isfinite(objective.tsld_temperature)) {
    return refuse("tsld_temperature", objective.tsld_temperature, "a positive number");
  }
  if (objective.cakld_windows < 1) {
    return refuse("cakld_windows", static_cast<double>(objective.cakld_windows), "1 or more");
  }
  if (!objective.beta.has_value()) return absl::OkStatus();
  if (objective.kind == Kind::kJsd && !(*objective.beta > 0 && *objective.beta < 1)) {
    return refuse("beta", *objective.beta, "a number between 0 and 1, ends excluded");
  }
  if (!(*objective.beta >= 0 && *objective.beta <= 1)) {
    return refuse("beta", *objective.beta, "0 to 1");
  }
  return absl::OkStatus();
}

StudentLoss::StudentLoss(const ModelEnds& ends, const Teacher* teacher, const torch::Tensor& ids,
                         torch::ScalarType compute)
    : teacher_(teacher), ids_(ids), head_(ends, compute) {
  if (teacher != nullptr && !teacher->ends.head.is_same(ends.head)) {
    own_teacher_.emplace(teacher->ends, compute);
  }
}

absl::StatusOr<StudentLoss> StudentLoss::create(const Objective& objective, const ModelEnds& ends,
                                                const Teacher* teacher, const torch::Tensor& ids,
                                                torch::ScalarType compute) {
  if (const absl::Status status = check_objective(objective); !status.ok()) return status;
  if (!objective.needs_teacher()) return StudentLoss(ends, nullptr, ids, compute);
  if (teacher == nullptr) {
    return absl::FailedPreconditionError(
        "the objective distils from a teacher, but none was run over the training windows");
  }
  TORCH_CHECK(teacher->residual.size(0) == ids.size(0) && teacher->residual.size(1) == ids.size(1),
              "the teacher saw ", teacher->residual.sizes(), ", the ids are ", ids.sizes());
  StudentLoss loss(ends, teacher, ids, compute);
  loss.beta_ = objective.beta.value_or(0.5);
  if (objective.kind == Kind::kCakld && !objective.beta.has_value()) {
    const int64_t last = std::min(objective.cakld_windows, ids.size(0));
    loss.beta_ = teacher_losses(*teacher, ids, 0, last, compute).neg().exp().mean().item<double>();
  }
  if (objective.kind == Kind::kTsld) {
    const torch::Tensor unsure =
        teacher_losses(*teacher, ids, 0, ids.size(0), compute);  // [windows, seq - 1]
    loss.token_weights_ = torch::softmax(unsure / objective.tsld_temperature, -1)
                              .mul_(static_cast<double>(ids.size(1) - 1));
  }
  loss.terms_ = terms_of(objective, loss.beta_);
  return loss;
}

LanguageHead::LogitsLoss StudentLoss::logits_loss(const torch::Tensor& windows,
                                                  double scale) const {
  const int64_t seq = ids_.size(1);
  const torch::Tensor targets =
      ids_.index_select(0, windows).narrow(1, 1, seq - 1).reshape({-1});  // [count * (seq - 1)]
  if (teacher_ == nullptr) {
    return [targets, scale](int64_t first, torch::Tensor& logits) {
      return ops::cross_entropy_(logits, targets.narrow(0, first, logits.size(0)), scale);
    };
  }
  const torch::NoGradGuard no_grad;
  const torch::Tensor residual =
      teacher_->residual.index_select(0, windows).narrow(1, 0, seq - 1).to(torch::kFloat32);
  const torch::Tensor hidden = final_hidden(
      teacher_->ends, residual.reshape({-1, residual.size(2)}));  // [count * (seq - 1), dim]
  torch::Tensor weights;                                          // [count * (seq - 1)]
  if (token_weights_.defined()) weights = token_weights_.index_select(0, windows).flatten();
  return [this, targets, hidden, weights, scale](int64_t first, torch::Tensor& logits) {
    const LanguageHead& head = own_teacher_.has_value() ? *own_teacher_ : head_;
    const int64_t rows = logits.size(0);
    return ops::distillation_(
        logits, head.logits(hidden.narrow(0, first, rows)), targets.narrow(0, first, rows),
        weights.defined() ? weights.narrow(0, first, rows) : weights, terms_, scale);
  };
}

LanguageHead::Loss StudentLoss::backward(const torch::Tensor& residual,
                                         const torch::Tensor& windows, double scale) const {
  return head_.backward(residual, logits_loss(windows, scale));
}

double StudentLoss::evaluate(const torch::Tensor& residual, const torch::Tensor& windows) const {
  return head_.evaluate(residual, logits_loss(windows, 0));
}

}  // namespace qaas
