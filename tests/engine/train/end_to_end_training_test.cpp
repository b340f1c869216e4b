#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tensor_matchers.h"
#include "tests/support/tiny_llama.h"
#include "workers/engine/quant/fake_quant_projection.h"
#include "workers/engine/quant/packed_projection.h"
#include "workers/engine/quant/quantized_block.h"
#include "workers/engine/train/end_to_end.h"

/// What trains, what is frozen, what is kept, and going on after an interruption.
namespace qaas {
namespace {

using ::testing::HasSubstr;
using testing::is_near;
using testing::IsOk;
using testing::same_bits;
using testing::StatusIs;
using testing::TemporaryFolder;
using testing::write_tiny_llama;

constexpr int64_t kWindows = 6, kSeq = 16;
enum class Form { kPacked, kFakeQuantized };

class EndToEndTraining : public ::testing::TestWithParam<Form> {
 protected:
  EndToEndTraining()
      : model_(write_tiny_llama(folder_.path(), {.blocks = 2})),
        ends_(load_ends(model_.config(), source())),
        rope_(make_rope_table(model_.config(), kSeq)) {
    torch::manual_seed(1);
    ids_ = torch::randint(model_.config().vocab_size, {kWindows, kSeq}, torch::kInt64);
    teacher_residual_ = torch::empty({kWindows, kSeq, model_.config().hidden_size});
    EXPECT_THAT(
        run_teacher(
            ends_, 2, [this](int64_t i) { return load_block(model_.config(), source(), i); }, ids_,
            rope_, torch::kFloat32, {}, teacher_residual_),
        IsOk());
  }

  TensorSource source() const {
    return [this](const std::string& name) -> const TensorView& { return model_.tensor(name); };
  }
  std::vector<DecoderBlock> quantized(bool symmetric = false) const {
    std::vector<DecoderBlock> blocks;
    for (int64_t i = 0; i < 2; ++i) {
      DecoderBlock block = load_block(model_.config(), source(), i).value();
      prepare_block(block, [&](const std::string&, int64_t) -> std::optional<AffineGrid> {
        return AffineGrid{.bits = 2, .group_size = 32, .symmetric = symmetric};
      });
      if (GetParam() == Form::kPacked) {
        block = make_packed_block(model_.config(), source(), i, convert_block(block));
      }
      blocks.push_back(block);
    }
    return blocks;
  }
  Teacher teacher() const { return {.ends = ends_, .residual = teacher_residual_}; }

  absl::StatusOr<TrainingReport> train(
      std::vector<DecoderBlock>& blocks, const EndToEndOptions& options,
      const EndToEndCheckpoints& checkpoints = {},
      const StepSink& sink = [](const TrainingStep&) {}, std::stop_token stop = {}) const {
    const Teacher original = teacher();
    return train_end_to_end(ends_, blocks, ids_, rope_, options, &original, checkpoints, sink,
                            stop);
  }

  /// All masters by name.
  static std::map<std::string, torch::Tensor> values(const std::vector<DecoderBlock>& blocks) {
    std::map<std::string, torch::Tensor> result;
    for (size_t i = 0; i < blocks.size(); ++i) {
      for (const auto& item : blocks[i]->named_parameters()) {
        EXPECT_FALSE(item.value().requires_grad()) << item.key();
        result[std::to_string(i) + "." + item.key()] = item.value().detach().clone();
      }
    }
    return result;
  }

  TemporaryFolder folder_;
  ModelFolder model_;
  ModelEnds ends_;
  RopeTable rope_;
  torch::Tensor ids_, teacher_residual_;
};

INSTANTIATE_TEST_SUITE_P(Forms, EndToEndTraining,
                         ::testing::Values(Form::kPacked, Form::kFakeQuantized),
                         [](const auto& info) {
                           return info.param == Form::kPacked ? "Packed" : "FakeQuantized";
                         });

EndToEndOptions all_train() {
  return {.epochs = 2,
          .batch_size = 2,
          .micro_batch_size = 1,
          .objective = {.kind = Objective::Kind::kForwardKl},
          .scale = {.learning_rate = 1e-3},
          .zero_point = {.learning_rate = 5e-2},
          .weight = {.learning_rate = 1e-3},
          .norm = {.learning_rate = 1e-3},
          .shuffle = true};
}

TEST_P(EndToEndTraining, EachRoleTrainsOnlyWithARateOfItsOwn) {
  for (const std::string role : {".scale", ".zero_point", "proj.weight", "layernorm.weight"}) {
    EndToEndOptions options = all_train();
    if (role != ".scale") options.scale.learning_rate = 0;
    if (role != ".zero_point") options.zero_point.learning_rate = 0;
    if (role != "proj.weight") options.weight.learning_rate = 0;
    if (role != "layernorm.weight") options.norm.learning_rate = 0;
    std::vector<DecoderBlock> blocks = quantized();
    for (const DecoderBlock& block : blocks) {
      // Steps too small for some weights: only where codes saturate has a zero point a gradient.
      for (const auto& [name, projection] : block->projections()) {
        const auto fake = std::dynamic_pointer_cast<FakeQuantProjection>(projection);
        if (fake != nullptr) torch::Tensor(fake->qparams().scale).mul_(0.5);
      }
    }
    const auto before = values(blocks);
    if (role == "proj.weight" && GetParam() == Form::kPacked) {
      EXPECT_THAT(train(blocks, options),
                  StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("nothing to train")));
      continue;
    }
    ASSERT_THAT(train(blocks, options), IsOk());
    for (const auto& [name, value] : values(blocks)) {
      const bool trains = name.size() > role.size() &&
                          name.compare(name.size() - role.size(), role.size(), role) == 0;
      EXPECT_EQ(!torch::equal(value, before.at(name)), trains) << name << " training " << role;
    }
  }
}

TEST_P(EndToEndTraining, ZeroPointsOfSymmetricGridsStay) {
  std::vector<DecoderBlock> blocks = quantized(/*symmetric=*/true);
  const auto before = values(blocks);
  ASSERT_THAT(train(blocks, all_train()), IsOk());
  for (const auto& [name, value] : values(blocks)) {
    if (name.find("zero_point") != std::string::npos) {
      EXPECT_TRUE(same_bits(value, before.at(name))) << name;
    }
  }
}

TEST_P(EndToEndTraining, FrozenProjectionsStayAndGiveTheSameWhateverIsHeldDense) {
  EndToEndOptions options = all_train();
  options.frozen = [](int64_t, const std::string& name) {
    return name == "self_attn.o_proj" || name == "self_attn.v_proj";
  };
  std::map<std::string, torch::Tensor> held;
  for (const int64_t budget : {int64_t{1} << 30, int64_t{20000}, int64_t{0}}) {
    options.frozen_weight_budget = budget;
    std::vector<DecoderBlock> blocks = quantized();
    const auto before = values(blocks);
    ASSERT_THAT(train(blocks, options), IsOk());
    const auto after = values(blocks);
    ASSERT_EQ(after.size(), before.size());
    for (const auto& [name, value] : after) {
      const bool frozen =
          name.find("o_proj") != std::string::npos || name.find("v_proj") != std::string::npos;
      EXPECT_EQ(torch::equal(value, before.at(name)), frozen) << name;
      if (!held.empty()) {
        EXPECT_TRUE(same_bits(value, held.at(name))) << name;
      }
    }
    held = after;
  }
}

TEST_P(EndToEndTraining, EveryObjectiveLowersItsLoss) {
  for (const auto kind :
       {Objective::Kind::kForwardKl, Objective::Kind::kReverseKl, Objective::Kind::kCakld,
        Objective::Kind::kJsd, Objective::Kind::kSoftCrossEntropy, Objective::Kind::kTsld}) {
    EndToEndOptions options = all_train();
    options.epochs = 6;
    options.objective.kind = kind;
    std::vector<DecoderBlock> blocks = quantized();
    const auto report = train(blocks, options);
    ASSERT_THAT(report, IsOk());
    const auto mean = [&](size_t epoch) {
      const auto first = report->losses.begin() + static_cast<int64_t>(3 * epoch);
      return (first[0] + first[1] + first[2]) / 3;
    };
    EXPECT_LT(mean(5), mean(0)) << int(kind);
  }
}

TEST_P(EndToEndTraining, RatesInStepsAreThoseOfTheProjectionsMeanScale) {
  EndToEndOptions options = all_train();
  options.epochs = 1;
  options.batch_size = kWindows;
  options.schedule = {.kind = LearningRateShape::Kind::kConstant};
  options.clip_norm = 0;
  options.unit = LearningRateUnit::kStepSize;
  options.scale.learning_rate = 0.01;
  std::vector<DecoderBlock> blocks = quantized();
  const auto before = values(blocks);
  ASSERT_THAT(train(blocks, options), IsOk());
  for (const auto& [name, value] : values(blocks)) {
    if (name.find(".scale") == std::string::npos) continue;
    // The first step of Adam moves everything by the rate.
    const double moved = (value - before.at(name)).abs().max().item<double>();
    EXPECT_NEAR(moved, 0.01 * before.at(name).mean().item<double>(), 2e-2 * moved) << name;
  }
}

TEST_P(EndToEndTraining, TheBestMeasurementIsKeptAndPatienceEndsTheTraining) {
  EndToEndOptions options = all_train();
  options.epochs = 5;
  options.validation_windows = 2;
  options.scale.learning_rate = 0.5;  // so large that nothing gets better
  options.patience = 2;
  std::vector<DecoderBlock> blocks = quantized();
  const auto before = values(blocks);
  const auto report = train(blocks, options);
  ASSERT_THAT(report, IsOk());
  EXPECT_EQ(report->validation_steps, (std::vector<int64_t>{0, 2, 4}));
  EXPECT_EQ(report->kept_step, 0);
  for (const auto& [name, value] : values(blocks)) {
    EXPECT_TRUE(same_bits(value, before.at(name))) << name;
  }
}

TEST_P(EndToEndTraining, HeldOutWindowsAreMeasuredAndNotTrainedOn) {
  EndToEndOptions options = all_train();
  options.validation_windows = 2;
  options.validation_steps = 1;
  options.restore_best = false;
  std::vector<DecoderBlock> blocks = quantized(), alone = quantized();
  const auto report = train(blocks, options);
  ASSERT_THAT(report, IsOk());
  EXPECT_EQ(report->validation_steps, (std::vector<int64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(report->kept_step, 4);
  // The same without those windows, the learning-rate schedule being one of steps.
  ids_ = ids_.slice(0, 0, kWindows - 2);
  teacher_residual_ = teacher_residual_.slice(0, 0, kWindows - 2);
  options.validation_windows = options.validation_steps = 0;
  ASSERT_THAT(train(alone, options), IsOk());
  const auto expected = values(alone);
  for (const auto& [name, value] : values(blocks)) {
    EXPECT_TRUE(same_bits(value, expected.at(name))) << name;
  }
}

TEST_P(EndToEndTraining, InterruptedAtAnyStepAndResumedGivesTheSameBytes) {
  EndToEndOptions options = all_train();
  options.epochs = 3;
  options.validation_windows = 1;
  options.validation_steps = 2;
  options.unit = LearningRateUnit::kStepSize;
  std::vector<DecoderBlock> whole = quantized();
  const auto uninterrupted = train(whole, options);
  ASSERT_THAT(uninterrupted, IsOk());
  const auto expected = values(whole);
  const auto steps = static_cast<int64_t>(uninterrupted->losses.size());
  ASSERT_EQ(steps, 9);
  for (int64_t interrupted = 1; interrupted < steps; ++interrupted) {
    EndToEndState state;
    const auto keep = [&](const EndToEndState& live) {
      state = live;
      for (auto& [name, tensor] : state.tensors) tensor = tensor.clone();
      return absl::OkStatus();
    };
    std::stop_source stop;
    std::vector<DecoderBlock> first = quantized();
    ASSERT_THAT(train(
                    first, options, {.save = keep, .every_steps = 2},
                    [&](const TrainingStep& step) {
                      if (step.step == interrupted) stop.request_stop();
                    },
                    stop.get_token()),
                StatusIs(absl::StatusCode::kCancelled, HasSubstr("stopped")));
    ASSERT_EQ(state.step, interrupted);
    std::vector<DecoderBlock> second = quantized();
    const auto resumed = train(second, options, {.resume_from = &state});
    ASSERT_THAT(resumed, IsOk());
    EXPECT_EQ(resumed->losses, uninterrupted->losses);
    EXPECT_EQ(resumed->validation_losses, uninterrupted->validation_losses);
    EXPECT_EQ(resumed->kept_step, uninterrupted->kept_step);
    for (const auto& [name, value] : values(second)) {
      EXPECT_TRUE(same_bits(value, expected.at(name))) << name << " after " << interrupted;
    }
  }
}

TEST_P(EndToEndTraining, AStateOfOtherParametersIsRefusedByName) {
  EndToEndState state;
  std::vector<DecoderBlock> blocks = quantized();
  ASSERT_THAT(train(blocks, all_train(),
                    {.save =
                         [&](const EndToEndState& live) {
                           state = live;
                           return absl::OkStatus();
                         },
                     .every_steps = 3}),
              IsOk());
  state.tensors["parameter/block.1.mlp.up_proj.scale"] = torch::zeros({1});
  EXPECT_THAT(train(blocks, all_train(), {.resume_from = &state}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("block.1.mlp.up_proj.scale")));
}

TEST_P(EndToEndTraining, AStateThatCannotBeKeptEndsTheTraining) {
  std::vector<DecoderBlock> blocks = quantized();
  EXPECT_THAT(
      train(blocks, all_train(),
            {.save = [](const EndToEndState&) { return absl::ResourceExhaustedError("disk"); },
             .every_steps = 2}),
      StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("disk")));
}

TEST_P(EndToEndTraining, WhatIsNotFiniteIsAnErrorThatNamesTheStep) {
  std::vector<DecoderBlock> blocks = quantized();
  const torch::NoGradGuard no_grad;
  blocks[1]->norms()[0].second.fill_(std::numeric_limits<float>::infinity());
  const auto status = train(blocks, all_train());
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInternal, HasSubstr("at step 1 of 6")));
}

}  // namespace
}  // namespace qaas
