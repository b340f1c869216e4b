#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "proto/spec/job_spec.h"
#include "tests/proto/spec/sample_job.h"

namespace qaas {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::qaas::testing::minimal_spec;
using ::qaas::testing::round_to_nearest_spec;
using ::qaas::testing::small_model;
using ::testing::IsEmpty;

TEST(SpecDefaults, DependOnTheBitWidthAsThePaperDoes) {
  struct Expected {
    int bits;
    int group_size;
    bool symmetric;
    double rate;
  };
  for (const Expected& expected : std::vector<Expected>{{2, 64, false, 2e-5},
                                                        {3, 128, false, 1e-5},
                                                        {4, 128, true, 1e-5},
                                                        {8, 128, true, 1e-5}}) {
    const v1::JobSpec spec = with_defaults(minimal_spec(expected.bits), small_model());
    EXPECT_EQ(spec.weights().group_size(), expected.group_size) << expected.bits;
    EXPECT_EQ(spec.weights().symmetric(), expected.symmetric) << expected.bits;
    EXPECT_EQ(spec.block_ap().weight_learning_rate(), expected.rate) << expected.bits;
    EXPECT_EQ(spec.e2e_qp().learning_rate(), expected.rate) << expected.bits;
  }
}

TEST(SpecDefaults, AreThoseOfTheProtoComments) {
  const v1::JobSpec spec = with_defaults(minimal_spec(), small_model());
  EXPECT_THAT(spec.target_runtimes(), ::testing::ElementsAre(v1::TARGET_RUNTIME_GPTQMODEL));
  EXPECT_EQ(spec.seed(), 2u);
  EXPECT_EQ(spec.pretraining_tokens(), 20 * small_model().non_embedding_parameter_count());
  EXPECT_EQ(spec.calibration().sampling(), v1::WINDOW_SAMPLING_RANDOM);
  EXPECT_EQ(spec.evaluation().sampling(), v1::WINDOW_SAMPLING_FIRST);
  EXPECT_FALSE(spec.calibration().has_samples());

  const v1::BlockApOptions& block_ap = spec.block_ap();
  EXPECT_EQ(block_ap.epochs(), 2);
  EXPECT_EQ(block_ap.batch_size(), 2);
  EXPECT_EQ(block_ap.quant_learning_rate(), 1e-4);
  EXPECT_EQ(block_ap.final_learning_rate_ratio(), 0.05);
  EXPECT_EQ(block_ap.gradient_clip_norm(), 0);
  EXPECT_EQ(block_ap.adam_beta1(), 0.9);
  EXPECT_EQ(block_ap.adam_beta2(), 0.999);
  EXPECT_EQ(block_ap.adam_epsilon(), 1e-8);
  EXPECT_EQ(block_ap.weight_decay(), 0);

  const v1::EndToEndOptions& e2e_qp = spec.e2e_qp();
  EXPECT_EQ(e2e_qp.epochs(), 1);
  EXPECT_EQ(e2e_qp.batch_size(), 32);
  EXPECT_EQ(e2e_qp.micro_batch_size(), 4);
  EXPECT_EQ(e2e_qp.schedule(), v1::LEARNING_RATE_SCHEDULE_COSINE);
  EXPECT_EQ(e2e_qp.warmup_ratio(), 0.03);
  EXPECT_EQ(e2e_qp.gradient_clip_norm(), 0.3);
}

TEST(SpecDefaults, LeaveNoFieldOfAStageUnset) {
  v1::JobSpec distillation = minimal_spec();
  distillation.set_method(v1::METHOD_DISTILLATION_QAT);
  const v1::JobSpec efficient = with_defaults(minimal_spec(), small_model());
  const v1::JobSpec distilled = with_defaults(distillation, small_model());
  for (const google::protobuf::Message* stage :
       {static_cast<const google::protobuf::Message*>(&efficient.block_ap()),
        static_cast<const google::protobuf::Message*>(&efficient.e2e_qp()),
        static_cast<const google::protobuf::Message*>(&distilled.distillation())}) {
    const google::protobuf::Descriptor& type = *stage->GetDescriptor();
    for (int i = 0; i < type.field_count(); ++i) {
      if (type.field(i)->name() == "freeze") continue;  // a list, empty by default
      EXPECT_TRUE(stage->GetReflection()->HasField(*stage, type.field(i)))
          << type.field(i)->full_name();
    }
  }
}

TEST(SpecDefaults, PresetsDifferInStartRatesAndObjective) {
  v1::JobSpec spec = minimal_spec(2);
  EXPECT_EQ(with_defaults(spec, small_model()).preset(), v1::PRESET_PAPER);
  spec.set_preset(v1::PRESET_ACCURACY);
  const v1::JobSpec accuracy = with_defaults(spec, small_model());
  EXPECT_EQ(accuracy.initialisation().initializer(), v1::INITIALIZER_CLIP_SEARCH);
  EXPECT_TRUE(accuracy.initialisation().activation_aware());
  EXPECT_EQ(accuracy.block_ap().learning_rate_unit(), v1::LEARNING_RATE_UNIT_STEP_SIZE);
  EXPECT_TRUE(accuracy.block_ap().shuffle());
  EXPECT_EQ(accuracy.e2e_qp().objective().kind(), v1::OBJECTIVE_KIND_FORWARD_KL);
  EXPECT_EQ(accuracy.e2e_qp().objective().temperature(), 1);
  spec.set_preset(v1::PRESET_FAST);
  const v1::JobSpec fast = with_defaults(spec, small_model());
  EXPECT_LT(fast.block_ap().epochs() + fast.e2e_qp().epochs(),
            accuracy.block_ap().epochs() + accuracy.e2e_qp().epochs());
}

TEST(SpecDefaults, PresetsWeighNothingWhereNoClipIsSearched) {
  v1::JobSpec spec = minimal_spec(2);
  spec.set_preset(v1::PRESET_ACCURACY);
  spec.mutable_initialisation()->set_initializer(v1::INITIALIZER_MIN_MAX);
  const v1::JobSpec full = with_defaults(spec, small_model());
  EXPECT_FALSE(full.initialisation().activation_aware());
  EXPECT_THAT(validate(full), IsEmpty());
}

TEST(SpecDefaults, RatesThatAreLeftOutFollowThoseThatAreGiven) {
  v1::JobSpec spec = minimal_spec(2);
  spec.mutable_block_ap()->set_quant_learning_rate(3e-4);
  spec.mutable_block_ap()->set_weight_learning_rate(4e-5);
  const v1::JobSpec full = with_defaults(spec, small_model());
  EXPECT_EQ(full.block_ap().zero_point_learning_rate(), 3e-4);
  EXPECT_EQ(full.block_ap().norm_learning_rate(), 4e-5);
  spec.mutable_block_ap()->set_learning_rate_unit(v1::LEARNING_RATE_UNIT_STEP_SIZE);
  EXPECT_EQ(with_defaults(spec, small_model()).block_ap().norm_learning_rate(), 0);
}

TEST(SpecDefaults, DistillationTrainsAllWeightsToTheOriginalsDistribution) {
  v1::JobSpec spec = minimal_spec();
  spec.set_method(v1::METHOD_DISTILLATION_QAT);
  const v1::JobSpec full = with_defaults(spec, small_model());
  EXPECT_FALSE(full.has_block_ap());
  EXPECT_EQ(full.initialisation().initializer(), v1::INITIALIZER_CLIP_SEARCH);
  EXPECT_EQ(full.distillation().objective().kind(), v1::OBJECTIVE_KIND_FORWARD_KL);
  EXPECT_EQ(full.distillation().objective().cross_entropy_weight(), 0);
  EXPECT_GT(full.distillation().weight_learning_rate(), 0);
  EXPECT_EQ(full.distillation().batch_size(), 8);
  EXPECT_EQ(full.distillation().gradient_clip_norm(), 1);
}

TEST(SpecDefaults, TakeSequenceLengthsFromTheModelWhereItIsShorter) {
  v1::Model model = small_model();
  EXPECT_EQ(with_defaults(minimal_spec(), model).calibration().sequence_length(), 256);
  model.set_max_position_embeddings(8192);
  EXPECT_EQ(with_defaults(minimal_spec(), model).evaluation().sequence_length(), 2048);
}

TEST(SpecDefaults, ShrinkBatchesToTheWindows) {
  v1::JobSpec spec = minimal_spec();
  spec.mutable_calibration()->set_samples(3);
  const v1::JobSpec full = with_defaults(spec, small_model());
  EXPECT_EQ(full.e2e_qp().batch_size(), 3);
  EXPECT_EQ(full.e2e_qp().micro_batch_size(), 3);
}

TEST(SpecDefaults, KeepWhatTheCallerWrote) {
  v1::JobSpec spec = minimal_spec(4);
  spec.set_seed(0);
  spec.set_pretraining_tokens(7);
  spec.mutable_weights()->set_symmetric(false);
  spec.mutable_block_ap()->set_epochs(0);
  spec.mutable_e2e_qp()->set_gradient_clip_norm(0);
  const v1::JobSpec full = with_defaults(spec, small_model());
  EXPECT_EQ(full.seed(), 0u);
  EXPECT_EQ(full.pretraining_tokens(), 7);
  EXPECT_FALSE(full.weights().symmetric());
  EXPECT_EQ(full.block_ap().epochs(), 0);
  EXPECT_EQ(full.e2e_qp().gradient_clip_norm(), 0);
}

TEST(SpecDefaults, GiveRoundToNearestNoStages) {
  const v1::JobSpec full = with_defaults(round_to_nearest_spec(), small_model());
  EXPECT_FALSE(full.has_block_ap());
  EXPECT_FALSE(full.has_e2e_qp());
  EXPECT_FALSE(full.has_calibration());
}

TEST(SpecDefaults, ApplyingTwiceChangesNothingAndStaysValid) {
  v1::JobSpec constant = minimal_spec(2);
  constant.mutable_e2e_qp()->set_schedule(v1::LEARNING_RATE_SCHEDULE_CONSTANT);
  v1::JobSpec overridden = minimal_spec(3);
  overridden.add_overrides()->set_pattern("*.v_proj");
  overridden.mutable_overrides(0)->mutable_weights()->set_bits(8);
  std::vector<v1::JobSpec> specs = {minimal_spec(2), minimal_spec(8), round_to_nearest_spec(3),
                                    constant, overridden};
  for (const v1::Preset preset : {v1::PRESET_PAPER, v1::PRESET_ACCURACY, v1::PRESET_FAST}) {
    specs.push_back(minimal_spec(2));
    specs.back().set_preset(preset);
  }
  for (int kind = v1::OBJECTIVE_KIND_CROSS_ENTROPY; kind <= v1::ObjectiveKind_MAX; ++kind) {
    specs.push_back(minimal_spec(4));
    specs.back().set_method(v1::METHOD_DISTILLATION_QAT);
    specs.back().mutable_distillation()->mutable_objective()->set_kind(
        static_cast<v1::ObjectiveKind>(kind));
  }
  specs.push_back(minimal_spec(3));
  specs.back().set_method(v1::METHOD_GPTQ);
  specs.back().mutable_activations()->set_bits(8);
  specs.back().mutable_automatic()->set_average_bits(4);
  specs.back().add_further_evaluations()->set_dataset("datasets/web");
  specs.push_back(minimal_spec(4));
  specs.back().mutable_calibration()->clear_dataset();
  specs.back().mutable_calibration()->set_samples(8);
  specs.back().mutable_calibration()->mutable_generated();
  for (const v1::JobSpec& spec : specs) {
    const v1::JobSpec once = with_defaults(spec, small_model());
    EXPECT_TRUE(MessageDifferencer::Equals(once, with_defaults(once, small_model())))
        << once.ShortDebugString();
    EXPECT_THAT(validate(once), IsEmpty()) << once.ShortDebugString();
    EXPECT_THAT(validate_for_model(once, small_model()), IsEmpty()) << once.ShortDebugString();
  }
}

TEST(SpecGrids, FirstMatchingOverrideApplies) {
  v1::JobSpec spec = minimal_spec(2);
  v1::ProjectionOverride* first = spec.add_overrides();
  first->set_pattern("*.0.*.v_proj");
  first->set_keep_full_precision(true);
  v1::ProjectionOverride* second = spec.add_overrides();
  second->set_pattern("*.v_proj");
  second->mutable_weights()->set_bits(8);
  second->mutable_weights()->set_group_size(-1);
  const v1::JobSpec full = with_defaults(spec, small_model());

  EXPECT_EQ(grid_for(full, "model.layers.0.self_attn.v_proj", 256).bits, 0);
  const ProjectionGrid overridden = grid_for(full, "model.layers.1.self_attn.v_proj", 256);
  EXPECT_EQ(overridden.bits, 8);
  EXPECT_EQ(overridden.group_size, 256);
  EXPECT_TRUE(overridden.symmetric);
  const ProjectionGrid rest = grid_for(full, "model.layers.1.self_attn.q_proj", 256);
  EXPECT_EQ(rest.bits, 2);
  EXPECT_EQ(rest.group_size, 64);
  EXPECT_FALSE(rest.symmetric);
}

TEST(SpecGrids, PatternsMatchWholeNames) {
  EXPECT_TRUE(pattern_matches("a.b", "a.b"));
  EXPECT_TRUE(pattern_matches("*", ""));
  EXPECT_TRUE(pattern_matches("a*", "a"));
  EXPECT_TRUE(pattern_matches("*.b.*", "a.b.c"));
  EXPECT_TRUE(pattern_matches("*ab", "aab"));
  EXPECT_TRUE(pattern_matches("a**c", "abc"));
  EXPECT_FALSE(pattern_matches("a.b", "axb"));
  EXPECT_FALSE(pattern_matches("a", "ab"));
  EXPECT_FALSE(pattern_matches("b", "ab"));
  EXPECT_FALSE(pattern_matches("", "a"));
  EXPECT_FALSE(pattern_matches("layers.1.*", "layers.11.q"));
}

TEST(SpecGrids, HostilePatternsMatchInPolynomialTime) {
  std::string pattern;
  for (int i = 0; i < 100; ++i) pattern += "*a";
  EXPECT_FALSE(pattern_matches(pattern + "b", std::string(20000, 'a')));
}

}  // namespace
}  // namespace qaas
