#include "workers/engine/train/objective.h"

#include "tests/support/status_matchers.h"
#include "tests/support/tensor_matchers.h"

namespace qaas {
namespace {

using ::testing::HasSubstr;
using testing::is_near;
using testing::StatusIs;
using Kind = Objective::Kind;

constexpr int64_t kDim = 8, kWindows = 3, kSeq = 50;

ModelEnds random_ends(int64_t vocab) {
  ModelEnds ends;
  ends.embedding = torch::randn({vocab, kDim});
  ends.head = ends.embedding;
  ends.final_norm = torch::rand({kDim}) + 0.5;
  ends.epsilon = 1e-5;
  return ends;
}

/// Targets' logits by plain ATen, [windows * (seq - 1), vocab] float64.
torch::Tensor plain_logits(const ModelEnds& ends, const torch::Tensor& residual) {
  const torch::Tensor x = residual.to(torch::kFloat64).narrow(1, 0, kSeq - 1).reshape({-1, kDim});
  const torch::Tensor hidden =
      x * torch::rsqrt(x.square().mean(-1, true) + ends.epsilon) * ends.final_norm;
  return torch::mm(hidden, ends.head.to(torch::kFloat64).t());
}

struct Problem {
  explicit Problem(int64_t vocab)
      : ends_((torch::manual_seed(3), random_ends(vocab))),
        teacher_ends_(random_ends(vocab)),
        teacher_{.ends = teacher_ends_, .residual = torch::randn({kWindows, kSeq, kDim})},
        residual_(torch::randn({kWindows, kSeq, kDim})),
        ids_(torch::randint(vocab, {kWindows, kSeq}, torch::kInt64)) {}

  torch::Tensor targets() const { return ids_.narrow(1, 1, kSeq - 1).reshape({-1, 1}); }

  /// The sheet's formula, one value per target; z: student's logits, t: teacher's.
  torch::Tensor formula(const Objective& objective, const torch::Tensor& z,
                        const torch::Tensor& t) const {
    const double heat = objective.temperature, beta = objective.beta.value_or(0.5);
    const torch::Tensor q = torch::softmax(z / heat, -1), p = torch::softmax(t / heat, -1);
    const torch::Tensor log_q = torch::log(q), log_p = torch::log(p);
    const torch::Tensor forward = (p * (log_p - log_q)).sum(-1);
    const torch::Tensor reverse = (q * (log_q - log_p)).sum(-1);
    const torch::Tensor soft = -(p * log_q).sum(-1);
    const torch::Tensor hard =
        -torch::log_softmax(z, -1).gather(1, targets()).squeeze(1);  // [targets]
    torch::Tensor distilled;
    switch (objective.kind) {
      case Kind::kCrossEntropy:
        return hard;
      case Kind::kForwardKl:
        distilled = forward;
        break;
      case Kind::kReverseKl:
        distilled = reverse;
        break;
      case Kind::kCakld:
        distilled = beta * reverse + (1 - beta) * forward;
        break;
      case Kind::kJsd: {
        const torch::Tensor m = beta * p + (1 - beta) * q;
        distilled =
            beta * (p * (log_p - m.log())).sum(-1) + (1 - beta) * (q * (log_q - m.log())).sum(-1);
        break;
      }
      case Kind::kSoftCrossEntropy:
        distilled = soft;
        break;
      case Kind::kTsld: {
        const torch::Tensor unsure =
            -torch::log_softmax(t, -1).gather(1, targets()).view({kWindows, kSeq - 1});
        distilled = soft * (torch::softmax(unsure / objective.tsld_temperature, -1) *
                            static_cast<double>(kSeq - 1))
                               .flatten();
        break;
      }
    }
    return (1 - objective.cross_entropy_weight) * heat * heat * distilled +
           objective.cross_entropy_weight * hard;
  }

  StudentLoss created(const Objective& objective) const {
    return StudentLoss::create(objective, ends_, &teacher_, ids_, torch::kFloat32).value();
  }

  const ModelEnds ends_, teacher_ends_;
  const Teacher teacher_;
  const torch::Tensor residual_;  // [windows, seq, dim] float32, the student's
  const torch::Tensor ids_;       // [windows, seq] int64
  const torch::Tensor all_ = torch::arange(kWindows);
};

class ObjectiveTest : public ::testing::Test, protected Problem {
 protected:
  ObjectiveTest() : Problem(300) {}
};

TEST_F(ObjectiveTest, ValueAndGradientAreThoseOfTheFormula) {
  const torch::Tensor teacher_logits = plain_logits(teacher_ends_, teacher_.residual);
  for (const Kind kind : {Kind::kCrossEntropy, Kind::kForwardKl, Kind::kReverseKl, Kind::kCakld,
                          Kind::kJsd, Kind::kSoftCrossEntropy, Kind::kTsld}) {
    for (const double temperature : {1.0, 2.0}) {
      for (const double cross_entropy_weight : {0.0, 0.25}) {
        const Objective objective{.kind = kind,
                                  .temperature = temperature,
                                  .cross_entropy_weight = cross_entropy_weight,
                                  .beta = 0.3,
                                  .tsld_temperature = 3};
        const torch::Tensor leaf = residual_.clone().requires_grad_(true);
        const torch::Tensor expected =
            formula(objective, plain_logits(ends_, leaf), teacher_logits).sum();
        (expected * 0.125).backward();
        const StudentLoss loss = created(objective);
        const LanguageHead::Loss actual = loss.backward(residual_, all_, 0.125);
        const double tolerance = 2e-5 * expected.item<double>();
        EXPECT_NEAR(actual.sum, expected.item<double>(), tolerance) << int(kind);
        EXPECT_NEAR(loss.evaluate(residual_, all_), expected.item<double>(), tolerance);
        EXPECT_TRUE(is_near(actual.gradient, leaf.grad(), 5e-5)) << int(kind);
      }
    }
  }
}

/// A vocabulary so large that the tokens of all windows take several chunks.
class ManyLogits : public ::testing::Test, protected Problem {
 protected:
  ManyLogits() : Problem(60000) {}
};

TEST_F(ManyLogits, WindowsTakenOneByOneByTheirIndexAddUp) {
  for (const Kind kind : {Kind::kCrossEntropy, Kind::kForwardKl, Kind::kTsld}) {
    const StudentLoss loss = created({.kind = kind});
    double sum = 0;
    for (const int64_t w : {2, 0, 1}) {
      sum += loss.evaluate(residual_.narrow(0, w, 1), torch::tensor({w}));
    }
    const double whole = loss.evaluate(residual_, all_);
    EXPECT_NEAR(sum, whole, 1e-5 * whole);
  }
}

TEST_F(ObjectiveTest, CakldTakesBetaFromTheTeachersConfidence) {
  const torch::Tensor probabilities =
      torch::softmax(plain_logits(teacher_ends_, teacher_.residual), -1)
          .gather(1, targets())
          .view({kWindows, kSeq - 1});
  EXPECT_NEAR(created({.kind = Kind::kCakld, .cakld_windows = 2}).beta(),
              probabilities.narrow(0, 0, 2).mean().item<double>(), 1e-6);
  EXPECT_NEAR(created({.kind = Kind::kCakld}).beta(), probabilities.mean().item<double>(), 1e-6);
  EXPECT_EQ(created({.kind = Kind::kCakld, .beta = 0.75}).beta(), 0.75);
}

TEST_F(ObjectiveTest, ATeacherInBfloat16IsCloseToOneInFloat32) {
  const Teacher half{.ends = teacher_ends_, .residual = teacher_.residual.to(torch::kBFloat16)};
  const Objective objective{.kind = Kind::kForwardKl};
  const double exact = created(objective).evaluate(residual_, all_);
  const StudentLoss rounded =
      StudentLoss::create(objective, ends_, &half, ids_, torch::kFloat32).value();
  EXPECT_NEAR(rounded.evaluate(residual_, all_), exact, 5e-3 * exact);
}

TEST_F(ObjectiveTest, DistillationWithoutATeacherIsRefused) {
  EXPECT_THAT(StudentLoss::create({.kind = Kind::kJsd}, ends_, nullptr, ids_, torch::kFloat32),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("teacher")));
}

TEST(Objective, ValuesOutOfRangeAreRefusedByName) {
  const auto refuses = [](const Objective& objective, const char* field) {
    EXPECT_THAT(check_objective(objective),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(field)));
  };
  refuses({.temperature = 0}, "temperature");
  refuses({.temperature = std::numeric_limits<double>::quiet_NaN()}, "temperature");
  refuses({.cross_entropy_weight = 1.5}, "cross_entropy_weight");
  refuses({.kind = Kind::kJsd, .beta = 1.0}, "beta");
  refuses({.kind = Kind::kCakld, .beta = -0.1}, "beta");
  refuses({.cakld_windows = 0}, "cakld_windows");
  refuses({.tsld_temperature = -1}, "tsld_temperature");
  EXPECT_TRUE(check_objective({.kind = Kind::kCakld, .beta = 1.0}).ok());
}

}  // namespace
}  // namespace qaas
