#include <limits>
#include <string>
#include <vector>

#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <google/protobuf/unknown_field_set.h>
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
using ::qaas::testing::violation;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_P(SpecRefusal, NamesTheFieldWhatWasFoundAndWhatIsAccepted) { expect_refusal(); }

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

v1::ProjectionOverride* keep(v1::JobSpec& spec, const std::string& pattern) {
  v1::ProjectionOverride* exception = spec.add_overrides();
  exception->set_pattern(pattern);
  exception->set_keep_full_precision(true);
  return exception;
}

INSTANTIATE_TEST_SUITE_P(
    Names, SpecRefusal,
    ::testing::Values(
        Refusal{"no_model", [](auto& s) { s.clear_model(); }, "model", "missing"},
        Refusal{"model_without_collection", [](auto& s) { s.set_model("small"); }, "model",
                "found 'small'; accepted: models/NAME"},
        Refusal{"model_outside_root", [](auto& s) { s.set_model("models/../etc"); }, "model",
                "found 'models/../etc'"},
        Refusal{"model_dots", [](auto& s) { s.set_model("models/.."); }, "model", "accepted"},
        Refusal{"model_nested", [](auto& s) { s.set_model("models/a/b"); }, "model", "accepted"},
        Refusal{"model_control_characters", [](auto& s) { s.set_model("models/a\x1b[2J"); },
                "model", "found 'models/a\\x1b[2J'"},
        Refusal{"model_long", [](auto& s) { s.set_model("models/" + std::string(129, 'a')); },
                "model", "1 to 128"},
        Refusal{"no_evaluation", [](auto& s) { s.clear_evaluation(); }, "evaluation.dataset",
                "missing"},
        Refusal{"no_calibration", [](auto& s) { s.clear_calibration(); }, "calibration.dataset",
                "missing"},
        Refusal{"dataset_of_models",
                [](auto& s) { s.mutable_calibration()->set_dataset("models/text"); },
                "calibration.dataset", "accepted: datasets/NAME"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Grids, SpecRefusal,
    ::testing::Values(
        Refusal{"no_method", [](auto& s) { s.clear_method(); }, "method",
                "missing; accepted: METHOD_ROUND_TO_NEAREST, METHOD_EFFICIENT_QAT"},
        Refusal{"no_bits", [](auto& s) { s.clear_weights(); }, "weights.bits", "missing"},
        Refusal{"five_bits", [](auto& s) { s.mutable_weights()->set_bits(5); }, "weights.bits",
                "found 5; accepted: 2, 3, 4, 8"},
        Refusal{"group_size_48", [](auto& s) { s.mutable_weights()->set_group_size(48); },
                "weights.group_size", "found 48; accepted: 32, 64, 128, 256, or -1"},
        Refusal{"group_size_zero", [](auto& s) { s.mutable_weights()->set_group_size(0); },
                "weights.group_size", "found 0"},
        Refusal{"group_size_minus_two", [](auto& s) { s.mutable_weights()->set_group_size(-2); },
                "weights.group_size", "found -2"},
        Refusal{"override_bits",
                [](auto& s) {
                  auto* exception = s.add_overrides();
                  exception->set_pattern("*");
                  exception->mutable_weights()->set_bits(1);
                },
                "overrides[0].weights.bits", "found 1"},
        Refusal{"override_without_pattern", [](auto& s) { keep(s, ""); }, "overrides[0].pattern",
                "missing"},
        Refusal{"override_long_pattern", [](auto& s) { keep(s, std::string(257, '*')); },
                "overrides[0].pattern", "found 257 characters; accepted: at most 256"},
        Refusal{"override_without_treatment", [](auto& s) { s.add_overrides()->set_pattern("*"); },
                "overrides[0]", "accepted: weights, keep_full_precision, or an initializer"},
        Refusal{"override_keep_false",
                [](auto& s) { keep(s, "*")->set_keep_full_precision(false); },
                "overrides[0].keep_full_precision", "found false; accepted: true"},
        Refusal{"override_twice",
                [](auto& s) {
                  keep(s, "*.q_proj");
                  keep(s, "*.q_proj");
                },
                "overrides[1].pattern", "a second time"},
        Refusal{"too_many_overrides",
                [](auto& s) {
                  for (int i = 0; i < 65; ++i) keep(s, "");
                },
                "overrides", "found 65 overrides; accepted: at most 64"},
        Refusal{"unspecified_runtime",
                [](auto& s) { s.add_target_runtimes(v1::TARGET_RUNTIME_UNSPECIFIED); },
                "target_runtimes[0]", "accepted: TARGET_RUNTIME_GPTQMODEL"},
        Refusal{"llama_cpp", [](auto& s) { s.add_target_runtimes(v1::TARGET_RUNTIME_LLAMA_CPP); },
                "target_runtimes[0]", "does not write GGUF files yet"},
        Refusal{"runtime_twice",
                [](auto& s) {
                  s.add_target_runtimes(v1::TARGET_RUNTIME_VLLM);
                  s.add_target_runtimes(v1::TARGET_RUNTIME_VLLM);
                },
                "target_runtimes[1]", "TARGET_RUNTIME_VLLM a second time"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Numbers, SpecRefusal,
    ::testing::Values(
        Refusal{"no_samples", [](auto& s) { s.mutable_calibration()->set_samples(0); },
                "calibration.samples", "found 0; accepted: 1 to 1000000"},
        Refusal{"short_sequence", [](auto& s) { s.mutable_evaluation()->set_sequence_length(7); },
                "evaluation.sequence_length", "found 7; accepted: 8 to 131072"},
        Refusal{"unknown_sampling",
                [](auto& s) {
                  s.mutable_evaluation()->set_sampling(static_cast<v1::WindowSampling>(9));
                },
                "evaluation.sampling", "found unknown value 9; accepted: WINDOW_SAMPLING_FIRST"},
        Refusal{"many_epochs", [](auto& s) { s.mutable_block_ap()->set_epochs(101); },
                "block_ap.epochs", "found 101; accepted: 0 to 100"},
        Refusal{"no_batch", [](auto& s) { s.mutable_block_ap()->set_batch_size(0); },
                "block_ap.batch_size", "found 0; accepted: 1 to 1024"},
        Refusal{"zero_rate", [](auto& s) { s.mutable_block_ap()->set_quant_learning_rate(0); },
                "block_ap.quant_learning_rate", "found 0; accepted: more than 0 and at most 1"},
        Refusal{"nan_rate", [](auto& s) { s.mutable_block_ap()->set_weight_learning_rate(kNan); },
                "block_ap.weight_learning_rate", "found nan"},
        Refusal{"ratio_above_one",
                [](auto& s) { s.mutable_block_ap()->set_final_learning_rate_ratio(1.5); },
                "block_ap.final_learning_rate_ratio", "found 1.5; accepted: 0 to 1"},
        Refusal{"infinite_clip",
                [](auto& s) { s.mutable_e2e_qp()->set_gradient_clip_norm(kInfinity); },
                "e2e_qp.gradient_clip_norm", "found inf"},
        Refusal{"beta_of_one", [](auto& s) { s.mutable_e2e_qp()->set_adam_beta2(1); },
                "e2e_qp.adam_beta2", "found 1; accepted: at least 0 and less than 1"},
        Refusal{"epsilon_of_zero", [](auto& s) { s.mutable_e2e_qp()->set_adam_epsilon(0); },
                "e2e_qp.adam_epsilon", "more than 0"},
        Refusal{"negative_decay", [](auto& s) { s.mutable_e2e_qp()->set_weight_decay(-0.1); },
                "e2e_qp.weight_decay", "found -0.1"},
        Refusal{"unknown_schedule",
                [](auto& s) {
                  s.mutable_e2e_qp()->set_schedule(static_cast<v1::LearningRateSchedule>(7));
                },
                "e2e_qp.schedule", "found unknown value 7"},
        Refusal{"no_pretraining_tokens", [](auto& s) { s.set_pretraining_tokens(0); },
                "pretraining_tokens", "found 0; accepted: 1 or more"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Contradictions, SpecRefusal,
    ::testing::Values(
        Refusal{"warmup_of_a_constant_rate",
                [](auto& s) {
                  s.mutable_e2e_qp()->set_schedule(v1::LEARNING_RATE_SCHEDULE_CONSTANT);
                  s.mutable_e2e_qp()->set_warmup_ratio(0.1);
                },
                "e2e_qp.warmup_ratio", "does not warm up"},
        Refusal{"micro_batch_above_batch",
                [](auto& s) {
                  s.mutable_e2e_qp()->set_batch_size(8);
                  s.mutable_e2e_qp()->set_micro_batch_size(9);
                },
                "e2e_qp.micro_batch_size", "found 9; accepted: 1 to batch_size, which is 8"},
        Refusal{"micro_batch_above_windows",
                [](auto& s) {
                  s.mutable_calibration()->set_samples(6);
                  s.mutable_e2e_qp()->set_micro_batch_size(8);
                },
                "e2e_qp.micro_batch_size", "which is 6"},
        Refusal{"nothing_trains",
                [](auto& s) {
                  s.mutable_block_ap()->set_epochs(0);
                  s.mutable_e2e_qp()->set_epochs(0);
                },
                "e2e_qp.epochs", "METHOD_ROUND_TO_NEAREST"},
        Refusal{"calibration_unread", [](auto& s) { s.set_method(v1::METHOD_ROUND_TO_NEAREST); },
                "calibration", "reads none"},
        Refusal{"block_ap_without_training",
                [](auto& s) {
                  s = round_to_nearest_spec();
                  s.mutable_block_ap();
                },
                "block_ap", "METHOD_EFFICIENT_QAT"},
        Refusal{"e2e_qp_without_training",
                [](auto& s) {
                  s = round_to_nearest_spec();
                  s.mutable_e2e_qp();
                },
                "e2e_qp", "METHOD_EFFICIENT_QAT"}),
    [](const auto& info) { return info.param.name; });

void generate(v1::JobSpec& spec) {
  spec.mutable_calibration()->clear_dataset();
  spec.mutable_calibration()->mutable_generated();
  spec.mutable_calibration()->set_samples(16);
}

INSTANTIATE_TEST_SUITE_P(
    Texts, SpecRefusal,
    ::testing::Values(
        Refusal{"unknown_packing",
                [](auto& s) { s.mutable_evaluation()->set_packing(static_cast<v1::Packing>(9)); },
                "evaluation.packing", "accepted: PACKING_CONCATENATE"},
        Refusal{"unknown_begin_of_sequence",
                [](auto& s) {
                  s.mutable_calibration()->set_begin_of_sequence(
                      static_cast<v1::BeginOfSequence>(9));
                },
                "calibration.begin_of_sequence", "accepted: BEGIN_OF_SEQUENCE_NONE"},
        Refusal{"generated_beside_a_dataset",
                [](auto& s) {
                  generate(s);
                  s.mutable_calibration()->set_dataset("datasets/text");
                },
                "calibration.dataset", "together with generated text"},
        Refusal{"generated_without_samples",
                [](auto& s) {
                  generate(s);
                  s.mutable_calibration()->clear_samples();
                },
                "calibration.samples", "missing"},
        Refusal{"generated_with_packing",
                [](auto& s) {
                  generate(s);
                  s.mutable_calibration()->set_packing(v1::PACKING_CONCATENATE);
                },
                "calibration.packing", "leave one out"},
        Refusal{"generated_at_no_temperature",
                [](auto& s) {
                  generate(s);
                  s.mutable_calibration()->mutable_generated()->set_temperature(0);
                },
                "calibration.generated.temperature", "more than 0 and at most 10"},
        Refusal{"generated_all_greedy",
                [](auto& s) {
                  generate(s);
                  s.mutable_calibration()->mutable_generated()->set_greedy_tokens(17);
                },
                "calibration.generated.greedy_tokens", "found 17; accepted: 0 to 16"},
        Refusal{"generated_evaluation",
                [](auto& s) { s.mutable_evaluation()->mutable_generated(); },
                "evaluation.generated", "only calibration text"},
        Refusal{"further_evaluation_without_a_name", [](auto& s) { s.add_further_evaluations(); },
                "further_evaluations[0].dataset", "missing"},
        Refusal{"further_evaluation_is_the_evaluation",
                [](auto& s) { s.add_further_evaluations()->set_dataset(s.evaluation().dataset()); },
                "further_evaluations[0].dataset", "a second time"},
        Refusal{"nine_further_evaluations",
                [](auto& s) {
                  for (int i = 0; i < 9; ++i) s.add_further_evaluations();
                },
                "further_evaluations", "found 9; accepted: at most 8"},
        Refusal{"task_outside_the_root", [](auto& s) { s.add_tasks("datasets/../x"); }, "tasks[0]",
                "accepted: datasets/NAME"},
        Refusal{"task_twice",
                [](auto& s) {
                  s.add_tasks("datasets/arc");
                  s.add_tasks("datasets/arc");
                },
                "tasks[1]", "name each task once"},
        Refusal{"seventeen_tasks",
                [](auto& s) {
                  for (int i = 0; i < 17; ++i) s.add_tasks("");
                },
                "tasks", "found 17; accepted: at most 16"}),
    [](const auto& info) { return info.param.name; });

TEST(SpecValidation, AcceptsTextTheModelWrites) {
  v1::JobSpec spec = minimal_spec();
  generate(spec);
  EXPECT_THAT(validate(spec), IsEmpty());
}

TEST(SpecValidation, AsksForCalibrationTextWhereRoundToNearestReadsIt) {
  v1::JobSpec weighted = round_to_nearest_spec();
  weighted.mutable_initialisation()->set_initializer(v1::INITIALIZER_CLIP_SEARCH);
  EXPECT_THAT(validate(weighted), IsEmpty());
  weighted.mutable_initialisation()->set_activation_aware(true);
  v1::JobSpec reported = round_to_nearest_spec();
  reported.set_signal_report(true);
  v1::JobSpec mixed = round_to_nearest_spec();
  mixed.mutable_automatic()->set_average_bits(3);
  for (v1::JobSpec& spec : std::vector<v1::JobSpec>{weighted, reported, mixed}) {
    EXPECT_THAT(validate(spec), ElementsAre(violation("calibration.dataset", "missing")));
    spec.mutable_calibration()->set_dataset("datasets/text");
    EXPECT_THAT(validate(spec), IsEmpty()) << spec.ShortDebugString();
  }
}

TEST(SpecValidation, AcceptsTheShortestSpecsOfEveryWidth) {
  for (const int bits : {2, 3, 4, 8}) {
    EXPECT_THAT(validate(minimal_spec(bits)), IsEmpty()) << bits;
    EXPECT_THAT(validate(round_to_nearest_spec(bits)), IsEmpty()) << bits;
  }
}

TEST(SpecValidation, ReportsEveryFieldOfAnEmptySpec) {
  EXPECT_THAT(
      validate(v1::JobSpec()),
      ElementsAre(violation("model", "missing"), violation("method", "missing"),
                  violation("weights.bits", "missing"), violation("calibration.dataset", "missing"),
                  violation("evaluation.dataset", "missing")));
}

TEST(SpecValidation, RefusesFieldNumbersItDoesNotKnow) {
  v1::JobSpec spec = minimal_spec();
  spec.GetReflection()->MutableUnknownFields(&spec)->AddVarint(1000, 1);
  v1::WeightQuantization* weights = spec.mutable_weights();
  weights->GetReflection()->MutableUnknownFields(weights)->AddVarint(77, 1);
  EXPECT_THAT(validate(spec),
              ElementsAre(violation("#1000", "field number 1000 of JobSpec is unknown"),
                          violation("weights.#77", "field number 77 of WeightQuantization")));
}

TEST(SpecValidation, RefusesUnknownMethodsByNumber) {
  v1::JobSpec spec = round_to_nearest_spec();
  spec.set_method(static_cast<v1::Method>(99));
  EXPECT_THAT(validate(spec), ::testing::Contains(violation("method", "unknown value 99")));
}

TEST(SpecValidation, AnswersHugeListsWithFewViolations) {
  v1::JobSpec spec = minimal_spec();
  for (int i = 0; i < 100000; ++i) spec.add_target_runtimes(v1::TARGET_RUNTIME_VLLM);
  EXPECT_THAT(validate(spec), SizeIs(1));
}

}  // namespace
}  // namespace qaas
