#include <set>
#include <string>

#include <absl/strings/str_cat.h>

#include "proto/spec/field_checks.h"

namespace qaas {
namespace {

constexpr int kMostSamples = 1'000'000;
constexpr int kShortestSequence = 8;
constexpr int kLongestSequence = 131072;
constexpr int kMostFurther = 8;
constexpr int kMostTasks = 16;

void check_windows(const std::string& path, const v1::DataSelection& selection,
                   FieldChecks& checks) {
  if (selection.has_samples()) {
    checks.integer(path + ".samples", selection.samples(), 1, kMostSamples);
  }
  if (selection.has_sequence_length()) {
    checks.integer(path + ".sequence_length", selection.sequence_length(), kShortestSequence,
                   kLongestSequence);
  }
}

/// Text the model writes: nothing of a dataset may be asked of it.
void check_generated(const std::string& path, const v1::DataSelection& selection,
                     FieldChecks& checks) {
  const std::string found =
      "found together with generated text, which has no dataset; leave one out";
  if (!selection.dataset().empty()) checks.add(path + ".dataset", found);
  if (!selection.has_samples()) {
    checks.add(path + ".samples",
               "missing; generated text has no size of its own; accepted: 1 to 1000000");
  }
  if (selection.sampling() != v1::WINDOW_SAMPLING_UNSPECIFIED) {
    checks.add(path + ".sampling", found);
  }
  if (selection.has_parse_special_tokens()) checks.add(path + ".parse_special_tokens", found);
  if (selection.begin_of_sequence() != v1::BEGIN_OF_SEQUENCE_UNSPECIFIED) {
    checks.add(path + ".begin_of_sequence", found);
  }
  if (selection.packing() != v1::PACKING_UNSPECIFIED) checks.add(path + ".packing", found);
  check_windows(path, selection, checks);
  const v1::GeneratedText& generated = selection.generated();
  if (generated.has_greedy_tokens()) {
    checks.integer(path + ".generated.greedy_tokens", generated.greedy_tokens(), 0, 16);
  }
  if (generated.has_temperature()) {
    checks.number(path + ".generated.temperature", generated.temperature(),
                  {.low = 0, .high = 10, .open_low = true});
  }
}

void check_dataset(const std::string& path, const v1::DataSelection& selection,
                   FieldChecks& checks) {
  checks.name(path + ".dataset", "datasets", selection.dataset());
  check_windows(path, selection, checks);
  checks.enumerator(path + ".sampling", selection.sampling(), *v1::WindowSampling_descriptor());
  checks.enumerator(path + ".begin_of_sequence", selection.begin_of_sequence(),
                    *v1::BeginOfSequence_descriptor());
  checks.enumerator(path + ".packing", selection.packing(), *v1::Packing_descriptor());
}

void check_evaluation(const std::string& path, const v1::DataSelection& selection,
                      FieldChecks& checks) {
  check_dataset(path, selection, checks);
  if (selection.has_generated()) {
    checks.add(path + ".generated",
               "found, but only calibration text can be generated; name a dataset");
  }
}

void check_further_evaluations(const v1::JobSpec& spec, FieldChecks& checks) {
  if (spec.further_evaluations_size() > kMostFurther) {
    checks.add("further_evaluations", absl::StrCat("found ", spec.further_evaluations_size(),
                                                   "; accepted: at most ", kMostFurther));
    return;
  }
  std::set<std::string> seen = {spec.evaluation().dataset()};
  for (int i = 0; i < spec.further_evaluations_size(); ++i) {
    const std::string path = absl::StrCat("further_evaluations[", i, "]");
    const v1::DataSelection& further = spec.further_evaluations(i);
    check_evaluation(path, further, checks);
    if (!further.dataset().empty() && !seen.insert(further.dataset()).second) {
      checks.add(path + ".dataset", absl::StrCat("found ", quoted(further.dataset()),
                                                 " a second time; name each text once"));
    }
  }
}

void check_tasks(const v1::JobSpec& spec, FieldChecks& checks) {
  if (spec.tasks_size() > kMostTasks) {
    checks.add("tasks",
               absl::StrCat("found ", spec.tasks_size(), "; accepted: at most ", kMostTasks));
    return;
  }
  std::set<std::string> seen;
  for (int i = 0; i < spec.tasks_size(); ++i) {
    const std::string path = absl::StrCat("tasks[", i, "]");
    checks.name(path, "datasets", spec.tasks(i));
    if (!spec.tasks(i).empty() && !seen.insert(spec.tasks(i)).second) {
      checks.add(path, absl::StrCat("found ", quoted(spec.tasks(i)),
                                    " a second time; name each task once"));
    }
  }
}

}  // namespace

void check_data(const v1::JobSpec& spec, FieldChecks& checks) {
  if (!reads_calibration(spec)) {
    if (spec.has_calibration()) {
      checks.add("calibration",
                 "found with METHOD_ROUND_TO_NEAREST, which reads none unless an activation-aware "
                 "start, GPTQ, a signal report or an automatic choice does; leave it out");
    }
  } else if (spec.calibration().has_generated()) {
    check_generated("calibration", spec.calibration(), checks);
  } else {
    check_dataset("calibration", spec.calibration(), checks);
  }
  check_evaluation("evaluation", spec.evaluation(), checks);
  check_further_evaluations(spec, checks);
  check_tasks(spec, checks);
}

}  // namespace qaas
