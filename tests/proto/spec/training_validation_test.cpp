#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/spec/job_spec.h"
#include "tests/proto/spec/refusal.h"
#include "tests/proto/spec/sample_job.h"

namespace qaas {
namespace {

using ::qaas::testing::minimal_spec;
using ::qaas::testing::Refusal;
using ::qaas::testing::SpecRefusal;
using ::qaas::testing::violation;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST_P(SpecRefusal, NamesTheFieldWhatWasFoundAndWhatIsAccepted) { expect_refusal(); }

v1::EndToEndOptions& distil(v1::JobSpec& spec) {
  spec.set_method(v1::METHOD_DISTILLATION_QAT);
  return *spec.mutable_distillation();
}

INSTANTIATE_TEST_SUITE_P(
    Stages, SpecRefusal,
    ::testing::Values(
        Refusal{"preset_of_another_method",
                [](auto& s) {
                  s.set_method(v1::METHOD_GPTQ);
                  s.set_preset(v1::PRESET_FAST);
                },
                "preset", "METHOD_EFFICIENT_QAT"},
        Refusal{"unknown_preset", [](auto& s) { s.set_preset(static_cast<v1::Preset>(9)); },
                "preset", "accepted: PRESET_PAPER, PRESET_ACCURACY, PRESET_FAST"},
        Refusal{"distillation_of_another_method", [](auto& s) { s.mutable_distillation(); },
                "distillation", "METHOD_DISTILLATION_QAT"},
        Refusal{"block_ap_of_distillation",
                [](auto& s) {
                  distil(s);
                  s.mutable_block_ap();
                },
                "block_ap", "METHOD_EFFICIENT_QAT"},
        Refusal{"distillation_without_epochs", [](auto& s) { distil(s).set_epochs(0); },
                "distillation.epochs", "nothing would train"},
        Refusal{"distillation_without_rates",
                [](auto& s) {
                  distil(s).set_learning_rate(0);
                  distil(s).set_weight_learning_rate(0);
                },
                "distillation.learning_rate", "nothing would train"},
        Refusal{"fast_without_blocks",
                [](auto& s) {
                  s.set_preset(v1::PRESET_FAST);
                  s.mutable_block_ap()->set_epochs(0);
                },
                "block_ap.epochs", "e2e_qp.epochs 0, the preset's: nothing would train"},
        Refusal{"unknown_trainable",
                [](auto& s) {
                  s.mutable_block_ap()->set_trainable(static_cast<v1::BlockApTrainable>(9));
                },
                "block_ap.trainable", "found unknown value 9"},
        Refusal{"zero_rate_of_zero_points",
                [](auto& s) { s.mutable_block_ap()->set_zero_point_learning_rate(0); },
                "block_ap.zero_point_learning_rate", "more than 0"},
        Refusal{"huge_rate_of_norms",
                [](auto& s) { s.mutable_block_ap()->set_norm_learning_rate(2); },
                "block_ap.norm_learning_rate", "found 2; accepted: 0 to 1"},
        Refusal{"another_unit_without_a_rate",
                [](auto& s) {
                  s.mutable_e2e_qp()->set_learning_rate_unit(v1::LEARNING_RATE_UNIT_STEP_SIZE);
                },
                "e2e_qp.learning_rate", "its default is in another unit"},
        Refusal{"no_checkpoint_steps", [](auto& s) { s.mutable_e2e_qp()->set_checkpoint_steps(0); },
                "e2e_qp.checkpoint_steps", "found 0; accepted: 1 to 1000000"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    HeldOut, SpecRefusal,
    ::testing::Values(Refusal{"all_windows_held_out",
                              [](auto& s) {
                                s.mutable_calibration()->set_samples(8);
                                s.mutable_block_ap()->set_validation_samples(8);
                              },
                              "block_ap.validation_samples", "found 8; accepted: 0 to 7"},
                      Refusal{"best_of_nothing",
                              [](auto& s) { s.mutable_block_ap()->set_restore_best(true); },
                              "block_ap.restore_best", "without validation_samples"},
                      Refusal{"patience_without_validation",
                              [](auto& s) { distil(s).set_early_stop_patience(1); },
                              "distillation.early_stop_patience", "without validation_samples"},
                      Refusal{"much_patience",
                              [](auto& s) {
                                s.mutable_e2e_qp()->set_validation_samples(4);
                                s.mutable_e2e_qp()->set_early_stop_patience(101);
                              },
                              "e2e_qp.early_stop_patience", "found 101; accepted: 0 to 100"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Objectives, SpecRefusal,
    ::testing::Values(
        Refusal{"no_kind", [](auto& s) { distil(s).mutable_objective()->set_temperature(2); },
                "distillation.objective.kind", "missing; accepted: OBJECTIVE_KIND_CROSS_ENTROPY"},
        Refusal{"temperature_without_a_teacher",
                [](auto& s) {
                  v1::Objective& objective = *s.mutable_e2e_qp()->mutable_objective();
                  objective.set_kind(v1::OBJECTIVE_KIND_CROSS_ENTROPY);
                  objective.set_temperature(2);
                },
                "e2e_qp.objective.temperature", "has no teacher"},
        Refusal{"mix_without_a_teacher",
                [](auto& s) {
                  v1::Objective& objective = *s.mutable_e2e_qp()->mutable_objective();
                  objective.set_kind(v1::OBJECTIVE_KIND_CROSS_ENTROPY);
                  objective.set_cross_entropy_weight(0.5);
                },
                "e2e_qp.objective.cross_entropy_weight", "has no teacher"},
        Refusal{"no_temperature",
                [](auto& s) {
                  distil(s).mutable_objective()->set_kind(v1::OBJECTIVE_KIND_FORWARD_KL);
                  distil(s).mutable_objective()->set_temperature(0);
                },
                "distillation.objective.temperature", "more than 0 and at most 100"},
        Refusal{"beta_of_kl",
                [](auto& s) {
                  distil(s).mutable_objective()->set_kind(v1::OBJECTIVE_KIND_FORWARD_KL);
                  distil(s).mutable_objective()->set_jsd_beta(0.5);
                },
                "distillation.objective.jsd_beta", "OBJECTIVE_KIND_JSD"},
        Refusal{"beta_of_one",
                [](auto& s) {
                  distil(s).mutable_objective()->set_kind(v1::OBJECTIVE_KIND_JSD);
                  distil(s).mutable_objective()->set_jsd_beta(1);
                },
                "distillation.objective.jsd_beta", "more than 0 and less than 1"},
        Refusal{"tau_of_kl",
                [](auto& s) {
                  distil(s).mutable_objective()->set_kind(v1::OBJECTIVE_KIND_FORWARD_KL);
                  distil(s).mutable_objective()->set_tsld_tau(10);
                },
                "distillation.objective.tsld_tau", "OBJECTIVE_KIND_TSLD"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Freezing, SpecRefusal,
    ::testing::Values(Refusal{"no_pattern", [](auto& s) { distil(s).add_freeze(""); },
                              "distillation.freeze[0]", "missing"},
                      Refusal{"pattern_twice",
                              [](auto& s) {
                                distil(s).add_freeze("*.o_proj");
                                distil(s).add_freeze("*.o_proj");
                              },
                              "distillation.freeze[1]", "a second time"},
                      Refusal{"many_patterns",
                              [](auto& s) {
                                for (int i = 0; i < 65; ++i) distil(s).add_freeze("");
                              },
                              "distillation.freeze", "found 65 patterns; accepted: at most 64"}),
    [](const auto& info) { return info.param.name; });

TEST(TrainingValidation, AcceptsEveryObjective) {
  for (int kind = v1::OBJECTIVE_KIND_CROSS_ENTROPY; kind <= v1::ObjectiveKind_MAX; ++kind) {
    v1::JobSpec spec = minimal_spec();
    distil(spec).mutable_objective()->set_kind(static_cast<v1::ObjectiveKind>(kind));
    EXPECT_THAT(validate(spec), IsEmpty()) << kind;
  }
}

TEST(TrainingValidation, AsksForEveryRateThatAnotherUnitLeavesOpen) {
  v1::JobSpec spec = minimal_spec();
  distil(spec).set_learning_rate_unit(v1::LEARNING_RATE_UNIT_ABSOLUTE);
  EXPECT_THAT(validate(spec),
              ElementsAre(violation("distillation.learning_rate", "missing"),
                          violation("distillation.weight_learning_rate", "missing")));
  distil(spec).set_learning_rate(0);
  distil(spec).set_weight_learning_rate(1e-5);
  EXPECT_THAT(validate(spec), IsEmpty());
}

}  // namespace
}  // namespace qaas
