#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/string_view.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>

#include "proto/spec/job_spec.h"

namespace qaas {
namespace {

constexpr int kMostOverrides = 64;
constexpr size_t kLongestPattern = 256;
constexpr size_t kLongestName = 128;
constexpr int kMostSamples = 1'000'000;
constexpr int kShortestSequence = 8;
constexpr int kLongestSequence = 131072;

/// The numbers a field accepts. `open_low` and `open_high` exclude the end itself.
struct Interval {
  double low = 0;
  double high = 0;
  bool open_low = false;
  bool open_high = false;
};

bool contains(const Interval& interval, double value) {
  if (!std::isfinite(value)) return false;
  const bool above = interval.open_low ? value > interval.low : value >= interval.low;
  return above && (interval.open_high ? value < interval.high : value <= interval.high);
}

std::string to_string(const Interval& interval) {
  if (!interval.open_low && !interval.open_high) {
    return absl::StrCat(interval.low, " to ", interval.high);
  }
  return absl::StrCat(interval.open_low ? "more than " : "at least ", interval.low, " and ",
                      interval.open_high ? "less than " : "at most ", interval.high);
}

/// A caller's text as it may appear in a message: quoted, escaped, not longer than a line.
std::string quoted(absl::string_view text) {
  constexpr size_t kMost = 80;
  const bool cut = text.size() > kMost;
  return absl::StrCat("'", absl::CHexEscape(text.substr(0, kMost)), cut ? "...'" : "'");
}

/// Enumerators of an enum, without the unspecified one.
std::string enumerators(const google::protobuf::EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 1; i < type.value_count(); ++i) names.push_back(type.value(i)->name());
  return absl::StrJoin(names, ", ");
}

class SpecCheck {
 public:
  std::vector<FieldViolation> run(const v1::JobSpec& spec);

 private:
  void add(std::string field, std::string description) {
    violations_.push_back({std::move(field), std::move(description)});
  }
  void check_unknown_fields(const google::protobuf::Message& message, const std::string& path);
  void check_name(const std::string& field, absl::string_view collection, absl::string_view name);
  void check_integer(const std::string& field, int64_t value, int64_t low, int64_t high);
  void check_number(const std::string& field, double value, const Interval& accepted);
  void check_enumerator(const std::string& field, int value,
                        const google::protobuf::EnumDescriptor& type);
  void check_grid(const std::string& path, const v1::WeightQuantization& grid);
  void check_overrides(const v1::JobSpec& spec);
  void check_runtimes(const v1::JobSpec& spec);
  void check_selection(const std::string& path, const v1::DataSelection& selection);
  void check_stages(const v1::JobSpec& spec);
  template <typename Options>
  void check_stage(const std::string& path, const Options& options);
  void check_block_ap(const v1::BlockApOptions& options);
  void check_e2e_qp(const v1::JobSpec& spec);

  std::vector<FieldViolation> violations_;
};

// A field number this program does not know is a wish it cannot honour: a newer client must hear
// of it rather than get a job without it.
void SpecCheck::check_unknown_fields(const google::protobuf::Message& message,
                                     const std::string& path) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const google::protobuf::UnknownFieldSet& unknown = reflection.GetUnknownFields(message);
  if (!unknown.empty()) {
    add(path.empty() ? absl::StrCat("#", unknown.field(0).number())
                     : absl::StrCat(path, ".#", unknown.field(0).number()),
        absl::StrCat("field number ", unknown.field(0).number(), " of ",
                     message.GetDescriptor()->name(),
                     " is unknown here; leave it out, or use a newer service"));
  }
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    const std::string field_path =
        path.empty() ? field->name() : absl::StrCat(path, ".", field->name());
    if (!field->is_repeated()) {
      check_unknown_fields(reflection.GetMessage(message, field), field_path);
      continue;
    }
    const int count = std::min(reflection.FieldSize(message, field), kMostOverrides);
    for (int i = 0; i < count; ++i) {
      check_unknown_fields(reflection.GetRepeatedMessage(message, field, i),
                           absl::StrCat(field_path, "[", i, "]"));
    }
  }
}

void SpecCheck::check_name(const std::string& field, absl::string_view collection,
                           absl::string_view name) {
  const std::string form =
      absl::StrCat(collection, "/NAME with NAME of 1 to ", kLongestName,
                   " letters, digits, '.', '_' and '-', beginning with a letter or a digit");
  if (name.empty()) {
    add(field, absl::StrCat("missing; accepted: ", form));
    return;
  }
  const std::string prefix = absl::StrCat(collection, "/");
  const absl::string_view id =
      name.substr(0, prefix.size()) == prefix ? name.substr(prefix.size()) : absl::string_view();
  const auto alphanumeric = [](unsigned char c) { return c < 128 && std::isalnum(c) != 0; };
  const bool good = !id.empty() && id.size() <= kLongestName && alphanumeric(id[0]) &&
                    std::all_of(id.begin(), id.end(), [&](char c) {
                      return alphanumeric(c) || c == '.' || c == '_' || c == '-';
                    });
  if (!good) add(field, absl::StrCat("found ", quoted(name), "; accepted: ", form));
}

void SpecCheck::check_integer(const std::string& field, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    add(field, absl::StrCat("found ", value, "; accepted: ", low, " to ", high));
  }
}

void SpecCheck::check_number(const std::string& field, double value, const Interval& accepted) {
  if (!contains(accepted, value)) {
    add(field, absl::StrCat("found ", value, "; accepted: ", to_string(accepted)));
  }
}

void SpecCheck::check_enumerator(const std::string& field, int value,
                                 const google::protobuf::EnumDescriptor& type) {
  if (type.FindValueByNumber(value) == nullptr) {
    add(field, absl::StrCat("found unknown value ", value, "; accepted: ", enumerators(type)));
  }
}

void SpecCheck::check_grid(const std::string& path, const v1::WeightQuantization& grid) {
  if (grid.bits() == 0) {
    add(path + ".bits", "missing; accepted: 2, 3, 4, 8");
  } else if (grid.bits() != 2 && grid.bits() != 3 && grid.bits() != 4 && grid.bits() != 8) {
    add(path + ".bits", absl::StrCat("found ", grid.bits(), "; accepted: 2, 3, 4, 8"));
  }
  if (!grid.has_group_size()) return;
  switch (grid.group_size()) {
    case -1:
    case 32:
    case 64:
    case 128:
    case 256:
      return;
    default:
      add(path + ".group_size",
          absl::StrCat("found ", grid.group_size(),
                       "; accepted: 32, 64, 128, 256, or -1 for a whole output row"));
  }
}

void SpecCheck::check_overrides(const v1::JobSpec& spec) {
  if (spec.overrides_size() > kMostOverrides) {
    add("overrides", absl::StrCat("found ", spec.overrides_size(), " overrides; accepted: at most ",
                                  kMostOverrides));
    return;
  }
  std::set<std::string> seen;
  for (int i = 0; i < spec.overrides_size(); ++i) {
    const v1::ProjectionOverride& exception = spec.overrides(i);
    const std::string path = absl::StrCat("overrides[", i, "]");
    const std::string& pattern = exception.pattern();
    if (pattern.empty()) {
      add(path + ".pattern",
          "missing; accepted: a projection name such as 'model.layers.0.mlp.down_proj', where '*' "
          "stands for any run of characters");
    } else if (pattern.size() > kLongestPattern) {
      add(path + ".pattern", absl::StrCat("found ", pattern.size(),
                                          " characters; accepted: at most ", kLongestPattern));
    } else if (!seen.insert(pattern).second) {
      add(path + ".pattern",
          absl::StrCat("found ", quoted(pattern), " a second time; only the first would apply"));
    }
    switch (exception.treatment_case()) {
      case v1::ProjectionOverride::kWeights:
        check_grid(path + ".weights", exception.weights());
        break;
      case v1::ProjectionOverride::kKeepFullPrecision:
        if (!exception.keep_full_precision()) {
          add(path + ".keep_full_precision", "found false; accepted: true, or leave it out");
        }
        break;
      case v1::ProjectionOverride::TREATMENT_NOT_SET:
        add(path, "says nothing to do; accepted: weights, or keep_full_precision");
        break;
    }
  }
}

void SpecCheck::check_runtimes(const v1::JobSpec& spec) {
  std::set<int> seen;
  for (int i = 0; i < spec.target_runtimes_size(); ++i) {
    const std::string field = absl::StrCat("target_runtimes[", i, "]");
    const int runtime = spec.target_runtimes(i);
    if (runtime == v1::TARGET_RUNTIME_UNSPECIFIED || !v1::TargetRuntime_IsValid(runtime)) {
      add(field, absl::StrCat("found ", runtime, "; accepted: TARGET_RUNTIME_GPTQMODEL, ",
                              "TARGET_RUNTIME_VLLM"));
      return;  // one complaint is enough for a list of any length
    }
    if (runtime == v1::TARGET_RUNTIME_LLAMA_CPP) {
      add(field,
          "found TARGET_RUNTIME_LLAMA_CPP, but the service does not write GGUF files yet; "
          "accepted: "
          "TARGET_RUNTIME_GPTQMODEL, TARGET_RUNTIME_VLLM");
    }
    if (!seen.insert(runtime).second) {
      add(field, absl::StrCat("found ", v1::TargetRuntime_Name(runtime),
                              " a second time; name each runtime once"));
      return;
    }
  }
}

void SpecCheck::check_selection(const std::string& path, const v1::DataSelection& selection) {
  check_name(path + ".dataset", "datasets", selection.dataset());
  if (selection.has_samples()) {
    check_integer(path + ".samples", selection.samples(), 1, kMostSamples);
  }
  if (selection.has_sequence_length()) {
    check_integer(path + ".sequence_length", selection.sequence_length(), kShortestSequence,
                  kLongestSequence);
  }
  check_enumerator(path + ".sampling", selection.sampling(), *v1::WindowSampling_descriptor());
}

/// What the options of both training stages have in common.
template <typename Options>
void SpecCheck::check_stage(const std::string& path, const Options& options) {
  if (options.has_epochs()) check_integer(path + ".epochs", options.epochs(), 0, 100);
  if (options.has_batch_size()) check_integer(path + ".batch_size", options.batch_size(), 1, 1024);
  if (options.has_gradient_clip_norm()) {
    check_number(path + ".gradient_clip_norm", options.gradient_clip_norm(),
                 {.low = 0, .high = 1e6});
  }
  if (options.has_adam_beta1()) {
    check_number(path + ".adam_beta1", options.adam_beta1(),
                 {.low = 0, .high = 1, .open_high = true});
  }
  if (options.has_adam_beta2()) {
    check_number(path + ".adam_beta2", options.adam_beta2(),
                 {.low = 0, .high = 1, .open_high = true});
  }
  if (options.has_adam_epsilon()) {
    check_number(path + ".adam_epsilon", options.adam_epsilon(),
                 {.low = 0, .high = 1, .open_low = true});
  }
  if (options.has_weight_decay()) {
    check_number(path + ".weight_decay", options.weight_decay(), {.low = 0, .high = 1});
  }
}

constexpr Interval kLearningRate{.low = 0, .high = 1, .open_low = true};
constexpr Interval kFraction{.low = 0, .high = 1};

void SpecCheck::check_block_ap(const v1::BlockApOptions& options) {
  check_stage("block_ap", options);
  if (options.has_quant_learning_rate()) {
    check_number("block_ap.quant_learning_rate", options.quant_learning_rate(), kLearningRate);
  }
  if (options.has_weight_learning_rate()) {
    check_number("block_ap.weight_learning_rate", options.weight_learning_rate(), kLearningRate);
  }
  if (options.has_final_learning_rate_ratio()) {
    check_number("block_ap.final_learning_rate_ratio", options.final_learning_rate_ratio(),
                 kFraction);
  }
}

void SpecCheck::check_e2e_qp(const v1::JobSpec& spec) {
  const v1::EndToEndOptions& options = spec.e2e_qp();
  check_stage("e2e_qp", options);
  if (options.has_micro_batch_size()) {
    const int batch = with_defaults(spec, v1::Model()).e2e_qp().batch_size();
    if (options.micro_batch_size() < 1) {
      check_integer("e2e_qp.micro_batch_size", options.micro_batch_size(), 1, 1024);
    } else if (options.micro_batch_size() > batch) {
      add("e2e_qp.micro_batch_size",
          absl::StrCat("found ", options.micro_batch_size(), "; accepted: 1 to batch_size, ",
                       "which is ", batch));
    }
  }
  if (options.has_learning_rate()) {
    check_number("e2e_qp.learning_rate", options.learning_rate(), kLearningRate);
  }
  check_enumerator("e2e_qp.schedule", options.schedule(), *v1::LearningRateSchedule_descriptor());
  if (!options.has_warmup_ratio()) return;
  if (options.schedule() == v1::LEARNING_RATE_SCHEDULE_CONSTANT) {
    add("e2e_qp.warmup_ratio", absl::StrCat("found ", options.warmup_ratio(),
                                            " with LEARNING_RATE_SCHEDULE_CONSTANT, which does "
                                            "not warm up; leave it out"));
  } else {
    check_number("e2e_qp.warmup_ratio", options.warmup_ratio(), kFraction);
  }
}

void SpecCheck::check_stages(const v1::JobSpec& spec) {
  if (spec.method() == v1::METHOD_EFFICIENT_QAT) {
    check_block_ap(spec.block_ap());
    check_e2e_qp(spec);
    const bool no_block_ap = spec.block_ap().has_epochs() && spec.block_ap().epochs() == 0;
    const bool no_e2e_qp = spec.e2e_qp().has_epochs() && spec.e2e_qp().epochs() == 0;
    if (no_block_ap && no_e2e_qp) {
      add("e2e_qp.epochs",
          "found 0 together with block_ap.epochs 0: nothing would train; train in one stage, or "
          "use METHOD_ROUND_TO_NEAREST");
    }
    return;
  }
  const std::string reason = "found with a method other than METHOD_EFFICIENT_QAT; leave it out";
  if (spec.has_block_ap()) add("block_ap", reason);
  if (spec.has_e2e_qp()) add("e2e_qp", reason);
}

std::vector<FieldViolation> SpecCheck::run(const v1::JobSpec& spec) {
  check_unknown_fields(spec, "");
  check_name("model", "models", spec.model());
  if (spec.method() == v1::METHOD_UNSPECIFIED) {
    add("method", absl::StrCat("missing; accepted: ", enumerators(*v1::Method_descriptor())));
  } else {
    check_enumerator("method", spec.method(), *v1::Method_descriptor());
  }
  check_grid("weights", spec.weights());
  check_overrides(spec);
  check_runtimes(spec);
  if (spec.method() == v1::METHOD_ROUND_TO_NEAREST) {
    if (spec.has_calibration()) {
      add("calibration", "found with METHOD_ROUND_TO_NEAREST, which reads none; leave it out");
    }
  } else {
    check_selection("calibration", spec.calibration());
  }
  check_selection("evaluation", spec.evaluation());
  check_stages(spec);
  if (spec.has_pretraining_tokens() && spec.pretraining_tokens() < 1) {
    add("pretraining_tokens",
        absl::StrCat("found ", spec.pretraining_tokens(), "; accepted: 1 or more"));
  }
  return std::move(violations_);
}

}  // namespace

std::vector<FieldViolation> validate(const v1::JobSpec& spec) { return SpecCheck().run(spec); }

}  // namespace qaas
