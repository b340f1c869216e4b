#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/spec/job_spec.h"
#include "tests/proto/spec/refusal.h"
#include "tests/proto/spec/sample_job.h"

namespace qaas {
namespace {

using ::qaas::testing::minimal_spec;
using ::qaas::testing::Refusal;
using ::qaas::testing::round_to_nearest_spec;
using ::qaas::testing::SpecRefusal;
using ::testing::IsEmpty;

TEST_P(SpecRefusal, NamesTheFieldWhatWasFoundAndWhatIsAccepted) { expect_refusal(); }

INSTANTIATE_TEST_SUITE_P(
    Initialisation, SpecRefusal,
    ::testing::Values(
        Refusal{"unknown_initializer",
                [](auto& s) {
                  s.mutable_initialisation()->set_initializer(static_cast<v1::Initializer>(9));
                },
                "initialisation.initializer", "found unknown value 9"},
        Refusal{"round_to_nearest_by_gptq",
                [](auto& s) {
                  s.set_method(v1::METHOD_ROUND_TO_NEAREST);
                  s.mutable_initialisation()->set_initializer(v1::INITIALIZER_GPTQ);
                },
                "initialisation.initializer", "use METHOD_GPTQ"},
        Refusal{"gptq_without_gptq",
                [](auto& s) {
                  s.set_method(v1::METHOD_GPTQ);
                  s.mutable_initialisation()->set_initializer(v1::INITIALIZER_MIN_MAX);
                },
                "initialisation.initializer", "found INITIALIZER_MIN_MAX with METHOD_GPTQ"},
        Refusal{"damping_of_min_max",
                [](auto& s) { s.mutable_initialisation()->set_gptq_damping(0.1); },
                "initialisation.gptq_damping", "no projection starts with INITIALIZER_GPTQ"},
        Refusal{"order_of_min_max",
                [](auto& s) { s.mutable_initialisation()->set_gptq_activation_order(false); },
                "initialisation.gptq_activation_order", "leave it out"},
        Refusal{"gptq_from_gptq",
                [](auto& s) {
                  s.set_method(v1::METHOD_GPTQ);
                  s.mutable_initialisation()->set_gptq_qparams(v1::INITIALIZER_GPTQ);
                },
                "initialisation.gptq_qparams",
                "found INITIALIZER_GPTQ; accepted: INITIALIZER_MIN_MAX, INITIALIZER_CLIP_SEARCH"},
        Refusal{"no_damping",
                [](auto& s) {
                  s.set_method(v1::METHOD_GPTQ);
                  s.mutable_initialisation()->set_gptq_damping(0);
                },
                "initialisation.gptq_damping", "more than 0 and at most 1"},
        Refusal{"aware_of_nothing",
                [](auto& s) { s.mutable_initialisation()->set_activation_aware(true); },
                "initialisation.activation_aware", "nothing searches clips"},
        Refusal{"initializer_of_a_kept_projection",
                [](auto& s) {
                  auto* exception = s.add_overrides();
                  exception->set_pattern("*");
                  exception->set_keep_full_precision(true);
                  exception->set_initializer(v1::INITIALIZER_GPTQ);
                },
                "overrides[0].initializer", "nothing to initialise"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Activations, SpecRefusal,
    ::testing::Values(Refusal{"no_bits", [](auto& s) { s.mutable_activations(); },
                              "activations.bits", "missing; accepted: 4, 8"},
                      Refusal{"six_bits", [](auto& s) { s.mutable_activations()->set_bits(6); },
                              "activations.bits", "found 6; accepted: 4, 8"},
                      Refusal{"two_bits_of_down_proj",
                              [](auto& s) {
                                s.mutable_activations()->set_bits(4);
                                s.mutable_activations()->set_down_proj_bits(2);
                              },
                              "activations.down_proj_bits", "found 2"},
                      Refusal{"group_of_eight",
                              [](auto& s) {
                                s.mutable_activations()->set_bits(4);
                                s.mutable_activations()->set_group_size(8);
                              },
                              "activations.group_size", "found 8; accepted: 16 to 4096, or -1"},
                      Refusal{"clip_without_training",
                              [](auto& s) {
                                s = round_to_nearest_spec();
                                s.mutable_activations()->set_bits(4);
                                s.mutable_activations()->set_learn_clip(true);
                              },
                              "activations.learn_clip", "does not train"},
                      Refusal{"four_bit_head", [](auto& s) { s.set_lm_head_bits(4); },
                              "lm_head_bits", "found 4; accepted: 8, or 0"},
                      Refusal{"four_bit_embedding", [](auto& s) { s.set_embedding_bits(4); },
                              "embedding_bits", "found 4; accepted: 8, or 0"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Automatic, SpecRefusal,
    ::testing::Values(Refusal{"nothing_to_choose", [](auto& s) { s.mutable_automatic(); },
                              "automatic", "accepted: average_bits, freeze_share"},
                      Refusal{"ten_bits",
                              [](auto& s) { s.mutable_automatic()->set_average_bits(10); },
                              "automatic.average_bits", "found 10"},
                      Refusal{"candidates_falling",
                              [](auto& s) {
                                s.mutable_automatic()->set_average_bits(3);
                                s.mutable_automatic()->add_candidate_bits(4);
                                s.mutable_automatic()->add_candidate_bits(2);
                              },
                              "automatic.candidate_bits", "found 2 after 4"},
                      Refusal{"one_candidate",
                              [](auto& s) {
                                s.mutable_automatic()->set_average_bits(3);
                                s.mutable_automatic()->add_candidate_bits(2);
                              },
                              "automatic.candidate_bits", "leaves no choice"},
                      Refusal{"candidates_without_a_budget",
                              [](auto& s) {
                                s.set_method(v1::METHOD_DISTILLATION_QAT);
                                s.mutable_automatic()->set_freeze_share(0.1);
                                s.mutable_automatic()->add_candidate_bits(2);
                              },
                              "automatic.candidate_bits", "without average_bits"},
                      Refusal{"freezing_without_distillation",
                              [](auto& s) { s.mutable_automatic()->set_freeze_share(0.1); },
                              "automatic.freeze_share", "METHOD_DISTILLATION_QAT"},
                      Refusal{"freezing_twice",
                              [](auto& s) {
                                s.set_method(v1::METHOD_DISTILLATION_QAT);
                                s.mutable_distillation()->add_freeze("*.o_proj");
                                s.mutable_automatic()->set_freeze_share(0.1);
                              },
                              "automatic.freeze_share", "together with distillation.freeze"}),
    [](const auto& info) { return info.param.name; });

TEST(QuantizationValidation, AcceptsEveryStartOfEveryMethodThatHasIt) {
  for (const v1::Method method : {v1::METHOD_ROUND_TO_NEAREST, v1::METHOD_EFFICIENT_QAT,
                                  v1::METHOD_GPTQ, v1::METHOD_DISTILLATION_QAT}) {
    v1::JobSpec spec =
        method == v1::METHOD_ROUND_TO_NEAREST ? round_to_nearest_spec() : minimal_spec();
    spec.set_method(method);
    spec.mutable_initialisation()->set_rotate(true);
    EXPECT_THAT(validate(spec), IsEmpty()) << v1::Method_Name(method);
    if (method == v1::METHOD_GPTQ) continue;
    spec.mutable_initialisation()->set_initializer(v1::INITIALIZER_CLIP_SEARCH);
    EXPECT_THAT(validate(spec), IsEmpty()) << v1::Method_Name(method);
  }
}

}  // namespace
}  // namespace qaas
