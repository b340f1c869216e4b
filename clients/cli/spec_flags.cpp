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
  if (flags.samples) spec.mutable_calibration()->set_samples(*flags.samples);
  if (flags.evaluation_samples) spec.mutable_evaluation()->set_samples(*flags.evaluation_samples);
  if (flags.sequence_length) {
    spec.mutable_evaluation()->set_sequence_length(*flags.sequence_length);
    // A method that reads no calibration text must not get a selection by way of its length.
    if (spec.has_calibration() || spec.method() != v1::METHOD_ROUND_TO_NEAREST) {
      spec.mutable_calibration()->set_sequence_length(*flags.sequence_length);
    }
  }
}

}  // namespace

void add_spec_flags(CLI::App& command, SpecFlags& flags) {
  const std::string group = "Job";
  command
      .add_option("--spec", flags.spec_file,
                  "JobSpec in proto JSON, '-' for standard input; flags override its fields")
      ->group(group);
  command.add_option("--model", flags.model, "Model folder of the server")->group(group);
  command.add_option("--method", flags.method, "round-to-nearest or efficient-qat")
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
  command.add_option("--calibration", flags.calibration, "Dataset that training sees")
      ->group(group);
  command.add_option("--evaluation", flags.evaluation, "Dataset the models are compared on")
      ->group(group);
  command.add_option("--samples", flags.samples, "Calibration windows")->group(group);
  command.add_option("--eval-samples", flags.evaluation_samples, "Evaluation windows")
      ->group(group);
  command
      .add_option("--sequence-length", flags.sequence_length, "Tokens per window, both datasets")
      ->group(group);
  command.add_option("--seed", flags.seed, "Seed of sampling and shuffling")->group(group);
  command
      .add_option("--pretraining-tokens", flags.pretraining_tokens,
                  "Tokens the model was trained on, for the forecast")
      ->group(group);
  command.add_option("--block-ap-epochs", flags.block_ap_epochs, "Passes of block-wise training")
      ->group(group);
  command.add_option("--e2e-qp-epochs", flags.e2e_qp_epochs, "Passes of end-to-end training")
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
  if (flags.bits) spec.mutable_weights()->set_bits(*flags.bits);
  if (flags.group_size) spec.mutable_weights()->set_group_size(group_size_of(*flags.group_size));
  if (flags.symmetric) spec.mutable_weights()->set_symmetric(true);
  if (flags.asymmetric) spec.mutable_weights()->set_symmetric(false);
  for (const std::string& pattern : flags.kept) {
    v1::ProjectionOverride* exception = spec.add_overrides();
    exception->set_pattern(pattern);
    exception->set_keep_full_precision(true);
  }
  if (!flags.targets.empty()) spec.clear_target_runtimes();
  for (const std::string& target : flags.targets) {
    spec.add_target_runtimes(kRuntimes.at(target));
  }
  put_data_flags(flags, spec);
  if (flags.seed) spec.set_seed(*flags.seed);
  if (flags.pretraining_tokens) spec.set_pretraining_tokens(*flags.pretraining_tokens);
  if (flags.block_ap_epochs) spec.mutable_block_ap()->set_epochs(*flags.block_ap_epochs);
  if (flags.e2e_qp_epochs) spec.mutable_e2e_qp()->set_epochs(*flags.e2e_qp_epochs);
  return spec;
}

}  // namespace qaas::cli
