#include <algorithm>
#include <set>
#include <string>

#include <absl/strings/str_cat.h>

#include "proto/spec/field_checks.h"
#include "proto/spec/presets.h"

namespace qaas {
namespace {

/// A rate that must train something, and one that may leave its parameters alone.
constexpr Interval kPositiveRate{.low = 0, .high = 1, .open_low = true};
constexpr Interval kRate{.low = 0, .high = 1};
constexpr int kMostWindows = 1'000'000;

/// What the options of all training stages have in common.
template <typename Options>
void check_stage(const std::string& path, const Options& options, FieldChecks& checks) {
  if (options.has_epochs()) checks.integer(path + ".epochs", options.epochs(), 0, 100);
  if (options.has_batch_size()) {
    checks.integer(path + ".batch_size", options.batch_size(), 1, 1024);
  }
  if (options.has_gradient_clip_norm()) {
    checks.number(path + ".gradient_clip_norm", options.gradient_clip_norm(),
                  {.low = 0, .high = 1e6});
  }
  if (options.has_adam_beta1()) {
    checks.number(path + ".adam_beta1", options.adam_beta1(),
                  {.low = 0, .high = 1, .open_high = true});
  }
  if (options.has_adam_beta2()) {
    checks.number(path + ".adam_beta2", options.adam_beta2(),
                  {.low = 0, .high = 1, .open_high = true});
  }
  if (options.has_adam_epsilon()) {
    checks.number(path + ".adam_epsilon", options.adam_epsilon(),
                  {.low = 0, .high = 1, .open_low = true});
  }
  if (options.has_weight_decay()) {
    checks.number(path + ".weight_decay", options.weight_decay(), kFraction);
  }
  checks.enumerator(path + ".learning_rate_unit", options.learning_rate_unit(),
                    *v1::LearningRateUnit_descriptor());
}

template <typename Options>
void check_held_out(const std::string& path, const Options& options,
                    const v1::DataSelection& calibration, FieldChecks& checks) {
  if (options.has_validation_samples()) {
    const int windows =
        calibration.has_samples() ? std::max(calibration.samples(), 1) : kMostWindows;
    checks.integer(path + ".validation_samples", options.validation_samples(), 0, windows - 1);
  }
  if (options.has_early_stop_patience()) {
    checks.integer(path + ".early_stop_patience", options.early_stop_patience(), 0, 100);
  }
  if (options.validation_samples() > 0) return;
  const std::string reason = "found without validation_samples, which it needs; give both";
  if (options.restore_best()) checks.add(path + ".restore_best", reason);
  if (options.early_stop_patience() > 0) checks.add(path + ".early_stop_patience", reason);
}

/// A rate that was left out has its preset's unit: in another one it would be absurd.
void check_rate_given(const std::string& path, const std::string& rate, bool given,
                      FieldChecks& checks) {
  if (!given) {
    checks.add(absl::StrCat(path, ".", rate),
               absl::StrCat("missing; its default is in another unit than ", path,
                            ".learning_rate_unit says"));
  }
}

template <typename Options>
bool changes_unit(const Options& options, const Options& preset) {
  return v1::LearningRateUnit_IsValid(options.learning_rate_unit()) &&
         options.learning_rate_unit() != v1::LEARNING_RATE_UNIT_UNSPECIFIED &&
         options.learning_rate_unit() != preset.learning_rate_unit();
}

void check_block_ap(const v1::JobSpec& spec, FieldChecks& checks) {
  const v1::BlockApOptions& options = spec.block_ap();
  check_stage("block_ap", options, checks);
  if (options.has_quant_learning_rate()) {
    checks.number("block_ap.quant_learning_rate", options.quant_learning_rate(), kPositiveRate);
  }
  if (options.has_weight_learning_rate()) {
    checks.number("block_ap.weight_learning_rate", options.weight_learning_rate(), kPositiveRate);
  }
  if (options.has_zero_point_learning_rate()) {
    checks.number("block_ap.zero_point_learning_rate", options.zero_point_learning_rate(),
                  kPositiveRate);
  }
  if (options.has_norm_learning_rate()) {
    checks.number("block_ap.norm_learning_rate", options.norm_learning_rate(), kRate);
  }
  if (options.has_final_learning_rate_ratio()) {
    checks.number("block_ap.final_learning_rate_ratio", options.final_learning_rate_ratio(),
                  kFraction);
  }
  checks.enumerator("block_ap.trainable", options.trainable(), *v1::BlockApTrainable_descriptor());
  check_held_out("block_ap", options, spec.calibration(), checks);
  if (changes_unit(options, block_ap_preset(spec.preset(), spec.weights().bits()))) {
    check_rate_given("block_ap", "quant_learning_rate", options.has_quant_learning_rate(), checks);
    check_rate_given("block_ap", "weight_learning_rate", options.has_weight_learning_rate(),
                     checks);
  }
}

void check_objective(const std::string& path, const v1::EndToEndOptions& options,
                     FieldChecks& checks) {
  if (!options.has_objective()) return;
  const v1::Objective& objective = options.objective();
  if (objective.kind() == v1::OBJECTIVE_KIND_UNSPECIFIED) {
    checks.add(path + ".kind",
               absl::StrCat("missing; accepted: ", enumerators(*v1::ObjectiveKind_descriptor())));
    return;
  }
  checks.enumerator(path + ".kind", objective.kind(), *v1::ObjectiveKind_descriptor());
  const bool teaches = objective.kind() != v1::OBJECTIVE_KIND_CROSS_ENTROPY;
  const std::string no_teacher =
      "found with OBJECTIVE_KIND_CROSS_ENTROPY, which has no teacher; leave it out";
  if (objective.has_temperature()) {
    teaches ? checks.number(path + ".temperature", objective.temperature(),
                            {.low = 0, .high = 100, .open_low = true})
            : checks.add(path + ".temperature", no_teacher);
  }
  if (objective.has_cross_entropy_weight()) {
    teaches
        ? checks.number(path + ".cross_entropy_weight", objective.cross_entropy_weight(), kFraction)
        : checks.add(path + ".cross_entropy_weight", no_teacher);
  }
  if (objective.has_jsd_beta()) {
    objective.kind() == v1::OBJECTIVE_KIND_JSD
        ? checks.number(path + ".jsd_beta", objective.jsd_beta(),
                        {.low = 0, .high = 1, .open_low = true, .open_high = true})
        : checks.add(path + ".jsd_beta",
                     "found with a kind other than OBJECTIVE_KIND_JSD; leave it out");
  }
  if (objective.has_tsld_tau()) {
    objective.kind() == v1::OBJECTIVE_KIND_TSLD
        ? checks.number(path + ".tsld_tau", objective.tsld_tau(),
                        {.low = 0, .high = 1e6, .open_low = true})
        : checks.add(path + ".tsld_tau",
                     "found with a kind other than OBJECTIVE_KIND_TSLD; leave it out");
  }
}

void check_freeze(const std::string& path, const v1::EndToEndOptions& options,
                  FieldChecks& checks) {
  if (options.freeze_size() > kMostPatterns) {
    checks.add(path, absl::StrCat("found ", options.freeze_size(), " patterns; accepted: at most ",
                                  kMostPatterns));
    return;
  }
  std::set<std::string> seen;
  for (int i = 0; i < options.freeze_size(); ++i) {
    const std::string field = absl::StrCat(path, "[", i, "]");
    checks.pattern(field, options.freeze(i));
    if (!options.freeze(i).empty() && !seen.insert(options.freeze(i)).second) {
      checks.add(field, absl::StrCat("found ", quoted(options.freeze(i)), " a second time"));
    }
  }
}

void check_schedule(const std::string& path, const v1::EndToEndOptions& options,
                    FieldChecks& checks) {
  checks.enumerator(path + ".schedule", options.schedule(), *v1::LearningRateSchedule_descriptor());
  if (!options.has_warmup_ratio()) return;
  if (options.schedule() == v1::LEARNING_RATE_SCHEDULE_CONSTANT) {
    checks.add(path + ".warmup_ratio", absl::StrCat("found ", options.warmup_ratio(),
                                                    " with LEARNING_RATE_SCHEDULE_CONSTANT, which "
                                                    "does not warm up; leave it out"));
  } else {
    checks.number(path + ".warmup_ratio", options.warmup_ratio(), kFraction);
  }
}

/// An end-to-end stage at `path`: `options` as written, `full` with defaults over `preset`.
void check_end_to_end(const std::string& path, const v1::EndToEndOptions& options,
                      const v1::EndToEndOptions& full, const v1::EndToEndOptions& preset,
                      const v1::DataSelection& calibration, FieldChecks& checks) {
  check_stage(path, options, checks);
  if (options.has_micro_batch_size()) {
    if (options.micro_batch_size() < 1) {
      checks.integer(path + ".micro_batch_size", options.micro_batch_size(), 1, 1024);
    } else if (options.micro_batch_size() > full.batch_size()) {
      checks.add(path + ".micro_batch_size",
                 absl::StrCat("found ", options.micro_batch_size(), "; accepted: 1 to batch_size, ",
                              "which is ", full.batch_size()));
    }
  }
  if (options.has_learning_rate()) {
    checks.number(path + ".learning_rate", options.learning_rate(), kRate);
  }
  if (options.has_zero_point_learning_rate()) {
    checks.number(path + ".zero_point_learning_rate", options.zero_point_learning_rate(), kRate);
  }
  if (options.has_norm_learning_rate()) {
    checks.number(path + ".norm_learning_rate", options.norm_learning_rate(), kRate);
  }
  if (options.has_weight_learning_rate()) {
    checks.number(path + ".weight_learning_rate", options.weight_learning_rate(), kRate);
  }
  if (options.has_checkpoint_steps()) {
    checks.integer(path + ".checkpoint_steps", options.checkpoint_steps(), 1, kMostWindows);
  }
  check_schedule(path, options, checks);
  check_objective(path + ".objective", options, checks);
  check_freeze(path + ".freeze", options, checks);
  check_held_out(path, options, calibration, checks);
  if (changes_unit(options, preset)) {
    check_rate_given(path, "learning_rate", options.has_learning_rate(), checks);
    if (preset.weight_learning_rate() > 0) {
      check_rate_given(path, "weight_learning_rate", options.has_weight_learning_rate(), checks);
    }
  }
  const bool trains = full.learning_rate() != 0 || full.zero_point_learning_rate() != 0 ||
                      full.norm_learning_rate() != 0 || full.weight_learning_rate() != 0;
  if (!trains && full.epochs() > 0) {
    checks.add(path + ".learning_rate",
               "found 0, like every other rate: nothing would train; give a rate, or 0 epochs");
  }
}

void check_efficient_qat(const v1::JobSpec& spec, const v1::JobSpec& full, FieldChecks& checks) {
  check_block_ap(spec, checks);
  check_end_to_end("e2e_qp", spec.e2e_qp(), full.e2e_qp(),
                   e2e_qp_preset(spec.preset(), spec.weights().bits()), spec.calibration(), checks);
  if (full.block_ap().epochs() == 0 && full.e2e_qp().epochs() == 0) {
    const bool by_preset = !spec.e2e_qp().has_epochs();
    checks.add(by_preset ? "block_ap.epochs" : "e2e_qp.epochs",
               absl::StrCat("found 0 together with ", by_preset ? "e2e_qp" : "block_ap",
                            ".epochs 0", by_preset ? ", the preset's" : "",
                            ": nothing would train; train in one stage, or use "
                            "METHOD_ROUND_TO_NEAREST or METHOD_GPTQ"));
  }
}

void check_distillation(const v1::JobSpec& spec, const v1::JobSpec& full, FieldChecks& checks) {
  check_end_to_end("distillation", spec.distillation(), full.distillation(), distillation_preset(),
                   spec.calibration(), checks);
  if (full.distillation().epochs() == 0) {
    checks.add("distillation.epochs",
               "found 0: nothing would train; accepted: 1 to 100, or use METHOD_ROUND_TO_NEAREST "
               "or METHOD_GPTQ");
  }
}

}  // namespace

void check_training(const v1::JobSpec& spec, const v1::JobSpec& full, FieldChecks& checks) {
  checks.enumerator("preset", spec.preset(), *v1::Preset_descriptor());
  const auto refuse = [&](const std::string& field, const char* method) {
    checks.add(field, absl::StrCat("found with a method other than ", method, "; leave it out"));
  };
  if (spec.method() == v1::METHOD_EFFICIENT_QAT) {
    check_efficient_qat(spec, full, checks);
  } else {
    if (spec.preset() != v1::PRESET_UNSPECIFIED) refuse("preset", "METHOD_EFFICIENT_QAT");
    if (spec.has_block_ap()) refuse("block_ap", "METHOD_EFFICIENT_QAT");
    if (spec.has_e2e_qp()) refuse("e2e_qp", "METHOD_EFFICIENT_QAT");
  }
  if (spec.method() == v1::METHOD_DISTILLATION_QAT) {
    check_distillation(spec, full, checks);
  } else if (spec.has_distillation()) {
    refuse("distillation", "METHOD_DISTILLATION_QAT");
  }
}

}  // namespace qaas
