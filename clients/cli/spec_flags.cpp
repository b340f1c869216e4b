#include "clients/cli/spec_flags.h"

#include <fstream>
#include <iostream>
#include <iterator>
#include <map>

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <google/protobuf/util/json_util.h>

#include "clients/cli/names.h"

namespace qaas::cli {
namespace {

const std::map<std::string, v1::Method> kMethods = {
    {"round-to-nearest", v1::METHOD_ROUND_TO_NEAREST},
    {"efficient-qat", v1::METHOD_EFFICIENT_QAT},
    {"gptq", v1::METHOD_GPTQ},
    {"distillation", v1::METHOD_DISTILLATION_QAT},
};

const std::map<std::string, v1::Preset> kPresets = {
    {"paper", v1::PRESET_PAPER},
    {"accuracy", v1::PRESET_ACCURACY},
    {"fast", v1::PRESET_FAST},
};

const std::map<std::string, v1::Initializer> kInitializers = {
    {"min-max", v1::INITIALIZER_MIN_MAX},
    {"clip-search", v1::INITIALIZER_CLIP_SEARCH},
    {"gptq", v1::INITIALIZER_GPTQ},
};

const std::map<std::string, v1::ObjectiveKind> kObjectives = {
    {"cross-entropy", v1::OBJECTIVE_KIND_CROSS_ENTROPY},
    {"forward-kl", v1::OBJECTIVE_KIND_FORWARD_KL},
    {"reverse-kl", v1::OBJECTIVE_KIND_REVERSE_KL},
    {"cakld", v1::OBJECTIVE_KIND_CAKLD},
    {"jsd", v1::OBJECTIVE_KIND_JSD},
    {"soft-cross-entropy", v1::OBJECTIVE_KIND_SOFT_CROSS_ENTROPY},
    {"tsld", v1::OBJECTIVE_KIND_TSLD},
};

const std::map<std::string, v1::TargetRuntime> kRuntimes = {
    {"gptqmodel", v1::TARGET_RUNTIME_GPTQMODEL},
    {"vllm", v1::TARGET_RUNTIME_VLLM},
    {"llama-cpp", v1::TARGET_RUNTIME_LLAMA_CPP},
};

absl::StatusOr<std::string> read_spec(const std::string& file) {
  constexpr size_t kLargest = 1 << 20;
  std::ifstream opened;
  if (file != "-") {
    opened.open(file, std::ios::binary);
    if (!opened) return absl::NotFoundError(absl::StrCat("cannot read spec file '", file, "'"));
  }
  std::istream& in = file == "-" ? std::cin : opened;
  std::string text(kLargest + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (in.bad()) return absl::NotFoundError(absl::StrCat("cannot read spec file '", file, "'"));
  if (text.size() > kLargest) {
    return absl::InvalidArgumentError(
        absl::StrCat("spec file '", file, "' is larger than ", kLargest, " bytes"));
  }
  return text;
}

absl::StatusOr<v1::JobSpec> parse_spec(const std::string& file) {
  const absl::StatusOr<std::string> text = read_spec(file);
  if (!text.ok()) return text.status();
  v1::JobSpec spec;
  const auto status = google::protobuf::util::JsonStringToMessage(*text, &spec);
  if (!status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("spec file '", file, "' is no JobSpec in proto ",
                                                   "JSON: ", status.message().ToString()));
  }
  return spec;
}

/// `-1` for "row"; the parsed number otherwise. The flag's check has refused anything else.
int group_size_of(const std::string& text) {
  int size = -1;
  if (text != "row" && !absl::SimpleAtoi(text, &size)) size = 0;
  return size;
}

template <typename Value>
std::vector<std::string> keys(const std::map<std::string, Value>& map) {
  std::vector<std::string> result;
  for (const auto& [key, value] : map) result.push_back(key);
  return result;
}

void put_data_flags(const SpecFlags& flags, v1::JobSpec& spec) {
  if (flags.calibration) {
    spec.mutable_calibration()->set_dataset(with_collection("datasets", *flags.calibration));
  }
  if (flags.evaluation) {
    spec.mutable_evaluation()->set_dataset(with_collection("datasets", *flags.evaluation));
  }
  for (const std::string& name : flags.further_evaluations) {
    spec.add_further_evaluations()->set_dataset(with_collection("datasets", name));
  }
  for (const std::string& name : flags.tasks) spec.add_tasks(with_collection("datasets", name));
  if (flags.samples) spec.mutable_calibration()->set_samples(*flags.samples);
  if (flags.evaluation_samples) {
    spec.mutable_evaluation()->set_samples(*flags.evaluation_samples);
    for (v1::DataSelection& further : *spec.mutable_further_evaluations()) {
      further.set_samples(*flags.evaluation_samples);
    }
  }
  if (flags.sequence_length) {
    spec.mutable_evaluation()->set_sequence_length(*flags.sequence_length);
    for (v1::DataSelection& further : *spec.mutable_further_evaluations()) {
      further.set_sequence_length(*flags.sequence_length);
    }
    // A method that reads no calibration text must not get a selection by way of its length.
    if (spec.has_calibration() || spec.method() != v1::METHOD_ROUND_TO_NEAREST) {
      spec.mutable_calibration()->set_sequence_length(*flags.sequence_length);
    }
  }
}

/// How weights and activations are quantized.
void put_quantization_flags(const SpecFlags& flags, v1::JobSpec& spec) {
  if (flags.bits) spec.mutable_weights()->set_bits(*flags.bits);
  if (flags.group_size) spec.mutable_weights()->set_group_size(group_size_of(*flags.group_size));
  if (flags.symmetric) spec.mutable_weights()->set_symmetric(true);
  if (flags.asymmetric) spec.mutable_weights()->set_symmetric(false);
  for (const std::string& pattern : flags.kept) {
    v1::ProjectionOverride* exception = spec.add_overrides();
    exception->set_pattern(pattern);
    exception->set_keep_full_precision(true);
  }
  if (flags.initializer) {
    spec.mutable_initialisation()->set_initializer(kInitializers.at(*flags.initializer));
  }
  if (flags.rotate) spec.mutable_initialisation()->set_rotate(true);
  if (flags.activations) spec.mutable_activations()->set_bits(*flags.activations);
  if (flags.average_bits) spec.mutable_automatic()->set_average_bits(*flags.average_bits);
}

/// How the quantized model trains. Objective and freezing are those of the method's end-to-end
/// stage.
void put_training_flags(const SpecFlags& flags, v1::JobSpec& spec) {
  if (flags.preset) spec.set_preset(kPresets.at(*flags.preset));
  if (flags.block_ap_epochs) spec.mutable_block_ap()->set_epochs(*flags.block_ap_epochs);
  if (flags.e2e_qp_epochs) spec.mutable_e2e_qp()->set_epochs(*flags.e2e_qp_epochs);
  const auto end_to_end = [&spec] {
    return spec.method() == v1::METHOD_DISTILLATION_QAT ? spec.mutable_distillation()
                                                        : spec.mutable_e2e_qp();
  };
  if (flags.objective) {
    end_to_end()->mutable_objective()->set_kind(kObjectives.at(*flags.objective));
  }
  for (const std::string& pattern : flags.frozen) end_to_end()->add_freeze(pattern);
  if (flags.ov_freeze) {
    for (const char* pattern : {"*.o_proj", "*.v_proj"}) end_to_end()->add_freeze(pattern);
  }
}

void add_quantization_flags(CLI::App& command, SpecFlags& flags, const std::string& group) {
  command
      .add_option("--initializer", flags.initializer,
                  "Where codes and scales start: min-max, clip-search or gptq")
      ->check(CLI::IsMember(keys(kInitializers)))
      ->group(group);
  command
      .add_flag("--rotate", flags.rotate,
                "Rotate the residual stream by a Hadamard matrix first, folded into the weights")
      ->group(group);
  command
      .add_option("--activations", flags.activations,
                  "Quantize the projections' inputs too: 4 or 8 bits, one scale per token")
      ->group(group);
  command
      .add_option("--average-bits", flags.average_bits,
                  "Let measured sensitivity spend this many bits a weight, scales included")
      ->group(group);
}

void add_training_flags(CLI::App& command, SpecFlags& flags, const std::string& group) {
  command
      .add_option("--preset", flags.preset, "Defaults of efficient-qat: paper, accuracy or fast")
      ->check(CLI::IsMember(keys(kPresets)))
      ->group(group);
  command.add_option("--block-ap-epochs", flags.block_ap_epochs, "Passes of block-wise training")
      ->group(group);
  command.add_option("--e2e-qp-epochs", flags.e2e_qp_epochs, "Passes of end-to-end training")
      ->group(group);
  command
      .add_option("--objective", flags.objective,
                  "What end-to-end training minimises: cross-entropy, forward-kl, reverse-kl, "
                  "cakld, jsd, soft-cross-entropy or tsld")
      ->check(CLI::IsMember(keys(kObjectives)))
      ->group(group);
  command
      .add_option("--freeze", flags.frozen,
                  "Projections that end-to-end training leaves at their post-training values, for "
                  "example '*.0.*'; repeatable")
      ->allow_extra_args(false)
      ->group(group);
  command
      .add_flag("--ov-freeze", flags.ov_freeze, "Short for --freeze '*.o_proj' --freeze '*.v_proj'")
      ->group(group);
}

}  // namespace

void add_spec_flags(CLI::App& command, SpecFlags& flags) {
  const std::string group = "Job";
  command
      .add_option("--spec", flags.spec_file,
                  "JobSpec in proto JSON, '-' for standard input; flags override its fields")
      ->group(group);
  command.add_option("--model", flags.model, "Model folder of the server")->group(group);
  command
      .add_option("--method", flags.method, "round-to-nearest, gptq, efficient-qat or distillation")
      ->check(CLI::IsMember(keys(kMethods)))
      ->group(group);
  command.add_option("--bits", flags.bits, "Bits per weight: 2, 3, 4 or 8")->group(group);
  command
      .add_option("--group-size", flags.group_size,
                  "Inputs that share a scale: 32, 64, 128, 256, or 'row' (-1)")
      ->check([](const std::string& text) {
        int size = 0;
        return text == "row" || absl::SimpleAtoi(text, &size) ? std::string()
                                                              : "not a number or 'row': " + text;
      })
      ->group(group);
  CLI::Option* symmetric =
      command.add_flag("--symmetric", flags.symmetric, "Zero points fixed at mid-range");
  CLI::Option* asymmetric =
      command.add_flag("--asymmetric", flags.asymmetric, "Zero points found per group");
  symmetric->excludes(asymmetric)->group(group);
  asymmetric->group(group);
  command
      .add_option("--keep", flags.kept,
                  "Projections to leave in full precision, for example '*.down_proj'; repeatable")
      ->allow_extra_args(false)
      ->group(group);
  command
      .add_option("--target", flags.targets,
                  "Runtime that must load the result: gptqmodel, vllm or llama-cpp; repeatable")
      ->check(CLI::IsMember(keys(kRuntimes)))
      ->allow_extra_args(false)
      ->group(group);
  add_quantization_flags(command, flags, group);
  add_training_flags(command, flags, group);
  command.add_option("--calibration", flags.calibration, "Dataset that training sees")
      ->group(group);
  command.add_option("--evaluation", flags.evaluation, "Dataset the models are compared on")
      ->group(group);
  command
      .add_option("--further-evaluation", flags.further_evaluations,
                  "Another dataset to compare them on; repeatable")
      ->allow_extra_args(false)
      ->group(group);
  command
      .add_option("--task", flags.tasks,
                  "Dataset of multiple-choice questions to answer; repeatable")
      ->allow_extra_args(false)
      ->group(group);
  command
      .add_flag("--signal-report", flags.signal_report,
                "Measure each projection's error, gradients and sensitivity")
      ->group(group);
  command.add_option("--samples", flags.samples, "Calibration windows")->group(group);
  command.add_option("--eval-samples", flags.evaluation_samples, "Evaluation windows")
      ->group(group);
  command.add_option("--sequence-length", flags.sequence_length, "Tokens per window, all datasets")
      ->group(group);
  command.add_option("--seed", flags.seed, "Seed of sampling and shuffling")->group(group);
  command
      .add_option("--pretraining-tokens", flags.pretraining_tokens,
                  "Tokens the model was trained on, for the forecast")
      ->group(group);
}

absl::StatusOr<v1::JobSpec> build_spec(const SpecFlags& flags) {
  v1::JobSpec spec;
  if (!flags.spec_file.empty()) {
    absl::StatusOr<v1::JobSpec> parsed = parse_spec(flags.spec_file);
    if (!parsed.ok()) return parsed.status();
    spec = *std::move(parsed);
  }
  if (flags.model) spec.set_model(with_collection("models", *flags.model));
  if (flags.method) spec.set_method(kMethods.at(*flags.method));
  put_quantization_flags(flags, spec);
  put_training_flags(flags, spec);
  if (flags.signal_report) spec.set_signal_report(true);
  if (!flags.targets.empty()) spec.clear_target_runtimes();
  for (const std::string& target : flags.targets) {
    spec.add_target_runtimes(kRuntimes.at(target));
  }
  put_data_flags(flags, spec);
  if (flags.seed) spec.set_seed(*flags.seed);
  if (flags.pretraining_tokens) spec.set_pretraining_tokens(*flags.pretraining_tokens);
  return spec;
}

}  // namespace qaas::cli
