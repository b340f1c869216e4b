#include <functional>
#include <ostream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/spec/job_spec.h"
#include "tests/proto/spec/sample_job.h"

namespace qaas {

void PrintTo(const FieldViolation& violation, std::ostream* out) {
  *out << violation.field << ": " << violation.description;
}

namespace {

using ::qaas::testing::add_projection;
using ::qaas::testing::llama;
using ::qaas::testing::minimal_spec;
using ::qaas::testing::round_to_nearest_spec;
using ::qaas::testing::small_model;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

auto violation(const std::string& field, const std::string& words) {
  return AllOf(Field(&FieldViolation::field, field),
               Field(&FieldViolation::description, HasSubstr(words)));
}

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

}  // namespace
}  // namespace qaas
