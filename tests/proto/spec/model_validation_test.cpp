#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/spec/job_spec.h"
#include "tests/proto/spec/refusal.h"
#include "tests/proto/spec/sample_job.h"

namespace qaas {
namespace {

using ::qaas::testing::add_projection;
using ::qaas::testing::llama;
using ::qaas::testing::minimal_spec;
using ::qaas::testing::round_to_nearest_spec;
using ::qaas::testing::small_model;
using ::qaas::testing::violation;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

v1::ProjectionOverride& override_with_bits(v1::JobSpec& spec, const std::string& pattern,
                                           int bits) {
  v1::ProjectionOverride* exception = spec.add_overrides();
  exception->set_pattern(pattern);
  exception->mutable_weights()->set_bits(bits);
  return *exception;
}

void keep(v1::JobSpec& spec, const std::string& pattern) {
  v1::ProjectionOverride* exception = spec.add_overrides();
  exception->set_pattern(pattern);
  exception->set_keep_full_precision(true);
}

TEST(ModelValidation, AcceptsEveryWidthOnTheDemoShape) {
  for (const int bits : {2, 3, 4, 8}) {
    EXPECT_THAT(validate_for_model(minimal_spec(bits), small_model()), IsEmpty()) << bits;
    EXPECT_THAT(validate_for_model(round_to_nearest_spec(bits), small_model()), IsEmpty()) << bits;
  }
}

TEST(ModelValidation, NamesTheLayerThatAGroupSizeDoesNotDivide) {
  const v1::Model odd = llama(2, 288, 768, 512, 288);
  v1::JobSpec spec = minimal_spec();
  spec.mutable_weights()->set_group_size(64);
  EXPECT_THAT(validate_for_model(spec, odd),
              ElementsAre(violation("weights.group_size",
                                    "found 64, which does not divide the 288 inputs of "
                                    "'model.layers.0.self_attn.q_proj'; accepted for this model: "
                                    "32, -1 (a whole output row)")));
  spec.mutable_weights()->set_group_size(32);
  EXPECT_THAT(validate_for_model(spec, odd), IsEmpty());
  spec.mutable_weights()->set_group_size(-1);
  EXPECT_THAT(validate_for_model(spec, odd), IsEmpty());
}

TEST(ModelValidation, ChecksTheDefaultGroupSizeToo) {
  EXPECT_THAT(validate_for_model(minimal_spec(), llama(1, 288, 768, 512, 288)),
              ElementsAre(violation("weights.group_size", "found 128")));
}

TEST(ModelValidation, BlamesTheOverrideWhoseGroupSizeDoesNotDivide) {
  v1::JobSpec spec = minimal_spec();
  spec.mutable_weights()->set_group_size(32);
  override_with_bits(spec, "*.down_proj", 2).mutable_weights()->set_group_size(256);
  EXPECT_THAT(validate_for_model(spec, llama(2, 256, 704, 512, 128)),
              ElementsAre(violation("overrides[0].weights.group_size",
                                    "found 256, which does not divide the 704 inputs of "
                                    "'model.layers.0.mlp.down_proj'; accepted for this model: 32, "
                                    "64, -1")));
}

TEST(ModelValidation, NamesTheLayerThatTheLayoutCannotHold) {
  v1::Model model = small_model();
  add_projection(model, "model.layers.4.odd", 100, 256);
  v1::JobSpec spec = minimal_spec();
  EXPECT_THAT(validate_for_model(spec, model),
              ElementsAre(violation("weights",
                                    "'model.layers.4.odd' is [100, 256]; the GPTQ layout "
                                    "needs both to be multiples of 32")));
  keep(spec, "*.odd");
  EXPECT_THAT(validate_for_model(spec, model), IsEmpty());
}

TEST(ModelValidation, RefusesOverridesThatNeverApply) {
  v1::JobSpec spec = minimal_spec();
  keep(spec, "model.layers.0.*");
  keep(spec, "model.layers.0.mlp.*");
  keep(spec, "*.nothing");
  EXPECT_THAT(validate_for_model(spec, small_model()),
              ElementsAre(violation("overrides[1].pattern", "earlier overrides take"),
                          violation("overrides[2].pattern",
                                    "accepted: names such as 'model.layers.0.self_attn.q_proj'")));
}

TEST(ModelValidation, RefusesAJobThatQuantizesNothing) {
  v1::JobSpec spec = minimal_spec();
  keep(spec, "*");
  EXPECT_THAT(validate_for_model(spec, small_model()),
              ElementsAre(violation("overrides", "nothing would be quantized")));
}

TEST(ModelValidation, RefusesAModelWithoutProjections) {
  v1::Model model = small_model();
  model.clear_projections();
  EXPECT_THAT(validate_for_model(minimal_spec(), model),
              ElementsAre(violation("model", "no projection")));
}

TEST(ModelValidation, RefusesSequencesLongerThanTheModelsPositions) {
  v1::JobSpec spec = minimal_spec();
  spec.mutable_calibration()->set_sequence_length(257);
  spec.mutable_evaluation()->set_sequence_length(512);
  EXPECT_THAT(
      validate_for_model(spec, small_model()),
      ElementsAre(violation("calibration.sequence_length", "found 257; accepted: at most 256"),
                  violation("evaluation.sequence_length", "found 512")));
}

TEST(ModelValidation, LetsVllmHaveWhatItLoads) {
  for (const int bits : {4, 8}) {
    for (const int group_size : {32, 64, 128, -1}) {
      v1::JobSpec spec = minimal_spec(bits);
      spec.mutable_weights()->set_group_size(group_size);
      spec.add_target_runtimes(v1::TARGET_RUNTIME_VLLM);
      EXPECT_THAT(validate_for_model(spec, small_model()), IsEmpty()) << bits << " " << group_size;
    }
  }
}

TEST(ModelValidation, TellsWhatWouldWorkWhereVllmWouldNotLoad) {
  v1::JobSpec two_bits = minimal_spec(2);
  two_bits.add_target_runtimes(v1::TARGET_RUNTIME_GPTQMODEL);
  two_bits.add_target_runtimes(v1::TARGET_RUNTIME_VLLM);
  EXPECT_THAT(validate_for_model(two_bits, small_model()),
              ElementsAre(violation("target_runtimes[1]", "4 bits symmetric would load")));

  v1::JobSpec asymmetric = minimal_spec(4);
  asymmetric.mutable_weights()->set_symmetric(false);
  asymmetric.add_target_runtimes(v1::TARGET_RUNTIME_VLLM);
  EXPECT_THAT(validate_for_model(asymmetric, small_model()),
              ElementsAre(violation("target_runtimes[0]", "symmetric = true would load")));

  v1::JobSpec wide_groups = minimal_spec(4);
  wide_groups.mutable_weights()->set_group_size(256);
  wide_groups.add_target_runtimes(v1::TARGET_RUNTIME_VLLM);
  EXPECT_THAT(validate_for_model(wide_groups, small_model()),
              ElementsAre(violation("target_runtimes[0]", "128 would load")));
}

TEST(ModelValidation, RefusesMixedGridsInProjectionsThatVllmFuses) {
  v1::JobSpec mixed = minimal_spec(4);
  mixed.add_target_runtimes(v1::TARGET_RUNTIME_VLLM);
  override_with_bits(mixed, "model.layers.1.self_attn.v_proj", 8);
  EXPECT_THAT(
      validate_for_model(mixed, small_model()),
      ElementsAre(violation("target_runtimes[0]", "'model.layers.1.self_attn.v_proj' (8 bits")));

  v1::JobSpec half_kept = minimal_spec(4);
  half_kept.add_target_runtimes(v1::TARGET_RUNTIME_VLLM);
  keep(half_kept, "*.up_proj");
  EXPECT_THAT(validate_for_model(half_kept, small_model()),
              ElementsAre(violation("target_runtimes[0]", "(full precision)")));

  v1::JobSpec alike = minimal_spec(4);
  alike.add_target_runtimes(v1::TARGET_RUNTIME_VLLM);
  keep(alike, "*.up_proj");
  keep(alike, "*.gate_proj");
  override_with_bits(alike, "*.down_proj", 8);
  EXPECT_THAT(validate_for_model(alike, small_model()), IsEmpty());
}

v1::JobSpec distillation_spec() {
  v1::JobSpec spec = minimal_spec();
  spec.set_method(v1::METHOD_DISTILLATION_QAT);
  return spec;
}

TEST(ModelValidation, NamesTheLayerThatAGroupOfActivationsDoesNotDivide) {
  v1::JobSpec spec = minimal_spec();
  spec.mutable_weights()->set_group_size(32);
  spec.mutable_activations()->set_bits(8);
  spec.mutable_activations()->set_group_size(48);
  EXPECT_THAT(validate_for_model(spec, small_model()),
              ElementsAre(violation("activations.group_size",
                                    "found 48, which does not divide the 256 inputs of "
                                    "'model.layers.0.self_attn.q_proj'")));
  keep(spec, "*.q_proj");
  keep(spec, "*.k_proj");
  keep(spec, "*.v_proj");
  keep(spec, "*.o_proj");
  keep(spec, "*.gate_proj");
  keep(spec, "*.up_proj");  // leaves down_proj, whose 768 inputs 48 divides
  EXPECT_THAT(validate_for_model(spec, small_model()), IsEmpty());
}

TEST(ModelValidation, ChecksTheShapeOfAQuantizedHead) {
  v1::JobSpec spec = minimal_spec();
  spec.set_lm_head_bits(8);
  EXPECT_THAT(validate_for_model(spec, small_model()), IsEmpty());
  v1::Model odd = small_model();
  odd.set_vocabulary_size(2001);
  EXPECT_THAT(validate_for_model(spec, odd),
              ElementsAre(violation("lm_head_bits", "the head is [2001, 256]")));
}

TEST(ModelValidation, RefusesFrozenPatternsThatMatchNothingOrEverything) {
  v1::JobSpec spec = distillation_spec();
  spec.mutable_distillation()->add_freeze("*.o_proj");
  spec.mutable_distillation()->add_freeze("*.v_proj");
  EXPECT_THAT(validate_for_model(spec, small_model()), IsEmpty());
  spec.mutable_distillation()->add_freeze("*.x_proj");
  EXPECT_THAT(validate_for_model(spec, small_model()),
              ElementsAre(violation("distillation.freeze[2]", "matches no projection")));
  spec.mutable_distillation()->set_freeze(2, "*");
  EXPECT_THAT(validate_for_model(spec, small_model()),
              ElementsAre(violation("distillation.freeze", "nothing would train")));
}

TEST(ModelValidation, SaysHowManyBitsAnAutomaticChoiceNeeds) {
  v1::JobSpec spec = minimal_spec(2);
  spec.mutable_automatic()->set_average_bits(2.28);
  // 2 + (2 + 16) / 64 = 2.28125.
  EXPECT_THAT(validate_for_model(spec, small_model()),
              ElementsAre(violation("automatic.average_bits", "accepted for this model: 2.29")));
  spec.mutable_automatic()->set_average_bits(2.29);
  EXPECT_THAT(validate_for_model(spec, small_model()), IsEmpty());
}

TEST(ModelValidation, KeepsVllmFromWidthsThatAChoiceMayMix) {
  v1::JobSpec spec = minimal_spec(4);
  spec.add_target_runtimes(v1::TARGET_RUNTIME_VLLM);
  spec.mutable_automatic()->set_average_bits(5);
  EXPECT_THAT(validate_for_model(spec, small_model()),
              ElementsAre(violation("target_runtimes[0]", "different widths")));
}

TEST(ModelValidation, AnOverrideMayNameAnInitializerAlone) {
  v1::JobSpec spec = minimal_spec();
  v1::ProjectionOverride* exception = spec.add_overrides();
  exception->set_pattern("*.down_proj");
  exception->set_initializer(v1::INITIALIZER_GPTQ);
  EXPECT_THAT(validate(spec), IsEmpty());
  EXPECT_THAT(validate_for_model(spec, small_model()), IsEmpty());
  EXPECT_EQ(grid_for(spec, "model.layers.0.mlp.down_proj", 768).bits, 4);
}

TEST(ModelValidation, ChecksTheLengthOfEveryText) {
  v1::JobSpec spec = minimal_spec();
  spec.add_further_evaluations()->set_dataset("datasets/web");
  spec.mutable_further_evaluations(0)->set_sequence_length(512);
  EXPECT_THAT(validate_for_model(spec, small_model()),
              ElementsAre(violation("further_evaluations[0].sequence_length", "found 512")));
}

}  // namespace
}  // namespace qaas
