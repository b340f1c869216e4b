#include "clients/cli/job_text.h"

#include <algorithm>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include "clients/cli/names.h"
#include "clients/cli/text.h"

namespace qaas::cli {
namespace {

double seconds_between(const google::protobuf::Timestamp& from,
                       const google::protobuf::Timestamp& to) {
  return static_cast<double>(to.seconds() - from.seconds()) + (to.nanos() - from.nanos()) / 1e9;
}

std::string failure_words(const v1::Failure& failure) {
  std::string text = absl::StrCat(printable(failure.code()), ": ", printable(failure.message()));
  if (!failure.position().empty())
    absl::StrAppend(&text, " (at ", printable(failure.position()), ")");
  return text;
}

/// One line for an end-to-end stage; blocks have their own event.
std::string curve_line(const v1::TrainingCurve& curve) {
  if (curve.has_block() || curve.losses().empty()) return "";
  return absl::StrCat(printable(curve.stage()), " done: loss ", format_number(curve.losses(0)),
                      " -> ", format_number(curve.losses(curve.losses_size() - 1)), ", ",
                      format_duration(curve.seconds()), ", ",
                      format_count(curve.tokens_per_second()), " tokens/s");
}

std::string signal_line(const v1::SignalReport& report) {
  if (report.projections().empty()) return "";
  const auto worst = std::max_element(
      report.projections().begin(), report.projections().end(),
      [](const auto& a, const auto& b) { return a.loss_sensitivity() < b.loss_sensitivity(); });
  return absl::StrCat("signals of ", report.projections_size(),
                      " projections measured; most sensitive: ", printable(worst->projection()),
                      ", ", format_signed(worst->loss_sensitivity()), " nats alone");
}

std::string decision_line(const v1::AutomaticDecision& decision) {
  std::string line = "chosen by measurement:";
  if (!decision.bits().empty()) {
    absl::StrAppend(&line, " ", format_number(decision.average_bits()),
                    " bits a weight, expected rise ", format_number(decision.predicted_loss_rise()),
                    " nats (one width for all: ", format_number(decision.uniform_loss_rise()), ")");
  }
  if (!decision.frozen().empty()) {
    absl::StrAppend(&line, decision.bits().empty() ? " " : ", ", decision.frozen_size(),
                    " projections frozen");
  }
  return line;
}

/// "EfficientQAT (accuracy)"; the preset of the paper goes without saying.
std::string method_and_preset(const v1::JobSpec& spec) {
  const std::string method = method_words(spec.method());
  switch (spec.preset()) {
    case v1::PRESET_ACCURACY:
      return method + " (accuracy)";
    case v1::PRESET_FAST:
      return method + " (fast)";
    default:
      return method;
  }
}

std::string progress_cell(const v1::Job& job) {
  if (job.state() != v1::JOB_STATE_RUNNING) return "";
  return absl::StrFormat("%.0f %%, %s left", 100 * job.progress().fraction(),
                         format_duration(job.progress().remaining_seconds()));
}

}  // namespace

std::string state_words(v1::JobState state) {
  switch (state) {
    case v1::JOB_STATE_QUEUED:
      return "queued";
    case v1::JOB_STATE_RUNNING:
      return "running";
    case v1::JOB_STATE_SUCCEEDED:
      return "succeeded";
    case v1::JOB_STATE_FAILED:
      return "failed";
    case v1::JOB_STATE_CANCELLED:
      return "cancelled";
    case v1::JOB_STATE_PAUSED:
      return "paused";
    default:
      return absl::StrCat("state ", static_cast<int>(state));
  }
}

std::string phase_words(v1::Phase phase) {
  switch (phase) {
    case v1::PHASE_LOADING:
      return "loading";
    case v1::PHASE_BASELINE:
      return "scoring baselines";
    case v1::PHASE_BLOCK_TRAINING:
      return "training blocks";
    case v1::PHASE_END_TO_END_TRAINING:
      return "training end to end";
    case v1::PHASE_EXPORTING:
      return "exporting";
    case v1::PHASE_EVALUATING:
      return "evaluating";
    case v1::PHASE_PUBLISHING:
      return "publishing";
    case v1::PHASE_PREPARING:
      return "preparing";
    default:
      return "working";
  }
}

std::string method_words(v1::Method method) {
  switch (method) {
    case v1::METHOD_ROUND_TO_NEAREST:
      return "round-to-nearest";
    case v1::METHOD_EFFICIENT_QAT:
      return "EfficientQAT";
    case v1::METHOD_GPTQ:
      return "GPTQ";
    case v1::METHOD_DISTILLATION_QAT:
      return "distillation QAT";
    default:
      return absl::StrCat("method ", static_cast<int>(method));
  }
}

std::string grid_words(const v1::WeightQuantization& weights) {
  const std::string group =
      weights.group_size() == -1 ? "whole rows" : absl::StrCat("groups of ", weights.group_size());
  return absl::StrCat(weights.bits(), " bits, ", group,
                      weights.symmetric() ? ", symmetric" : ", asymmetric");
}

std::string job_list_text(const std::vector<v1::Job>& jobs, int64_t now) {
  if (jobs.empty()) return "no jobs\n";
  Table table({"JOB", "STATE", "METHOD", "GRID", "MODEL", "AGE", "PROGRESS"});
  for (const v1::Job& job : jobs) {
    const double age = static_cast<double>(std::max<int64_t>(now - job.create_time().seconds(), 0));
    table.add_row({printable(last_segment(job.name())), state_words(job.state()),
                   method_words(job.spec().method()), grid_words(job.spec().weights()),
                   printable(last_segment(job.spec().model())), format_duration(age),
                   progress_cell(job)});
  }
  return table.text();
}

std::string progress_line(const v1::Progress& progress, int bar_width) {
  std::string line = phase_words(progress.phase()) + ": ";
  if (bar_width > 0) absl::StrAppend(&line, progress_bar(progress.fraction(), bar_width), " ");
  absl::StrAppendFormat(&line, "%.0f %%", 100 * std::clamp(progress.fraction(), 0.0, 1.0));
  if (progress.block_count() > 0) {
    absl::StrAppend(&line, ", block ", progress.block() + 1, "/", progress.block_count());
  }
  if (progress.step_count() > 0) {
    absl::StrAppend(&line, ", step ", progress.step(), "/", progress.step_count());
  }
  if (progress.loss() > 0) absl::StrAppend(&line, ", loss ", format_number(progress.loss()));
  if (progress.tokens_per_second() > 0) {
    absl::StrAppend(&line, ", ", format_count(progress.tokens_per_second()), " tokens/s");
  }
  if (progress.remaining_seconds() > 0) {
    absl::StrAppend(&line, ", ", format_duration(progress.remaining_seconds()), " left");
  }
  return line;
}

std::string event_line(const v1::JobEvent& event) {
  switch (event.event_case()) {
    case v1::JobEvent::kStateChanged: {
      const v1::StateChanged& change = event.state_changed();
      std::string line = state_words(change.state());
      if (!change.reason().empty()) absl::StrAppend(&line, ": ", printable(change.reason()));
      if (event.attempt() > 1) absl::StrAppend(&line, " (attempt ", event.attempt(), ")");
      if (change.has_failure()) absl::StrAppend(&line, "; ", failure_words(change.failure()));
      return line;
    }
    case v1::JobEvent::kPhaseStarted:
      return phase_words(event.phase_started().phase());
    case v1::JobEvent::kBlockFinished: {
      const v1::BlockFinished& block = event.block_finished();
      return absl::StrCat("block ", block.block() + 1, "/", block.block_count(), " done: loss ",
                          format_number(block.initial_loss()), " -> ",
                          format_number(block.final_loss()), ", ", format_duration(block.seconds()),
                          ", ", format_count(block.tokens_per_second()), " tokens/s");
    }
    case v1::JobEvent::kCheckpointWritten:
      return "checkpoint written: " + printable(event.checkpoint_written().description());
    case v1::JobEvent::kEvaluation: {
      const v1::Evaluation& evaluation = event.evaluation();
      return absl::StrCat("evaluated: perplexity ",
                          format_number(evaluation.original().perplexity(), 5), " -> ",
                          format_number(evaluation.quantized().perplexity(), 5));
    }
    case v1::JobEvent::kWarning:
      return "warning: " + printable(event.warning().message());
    case v1::JobEvent::kTrainingCurve:
      return curve_line(event.training_curve());
    case v1::JobEvent::kSignalReport:
      return signal_line(event.signal_report());
    case v1::JobEvent::kAutomaticDecision:
      return decision_line(event.automatic_decision());
    default:
      return "";
  }
}

std::string job_text(const v1::Job& job) {
  Table facts(
      {"job", job.name().empty() ? "(not created: validated only)" : printable(job.name())});
  std::string state = state_words(job.state());
  if (job.cancel_requested() && job.state() == v1::JOB_STATE_RUNNING) state += ", being cancelled";
  if (job.attempt() > 1) absl::StrAppend(&state, ", attempt ", job.attempt());
  if (job.state() != v1::JOB_STATE_UNSPECIFIED) facts.add_row({"state", state});
  facts.add_row({"model", printable(job.spec().model())});
  facts.add_row(
      {"method", method_and_preset(job.spec()) + ", " + grid_words(job.spec().weights()) +
                     (job.spec().overrides().empty()
                          ? ""
                          : absl::StrCat(", ", job.spec().overrides_size(), " overrides"))});
  if (job.spec().has_activations()) {
    facts.add_row({"activations", absl::StrCat(job.spec().activations().bits(), " bits")});
  }
  if (job.spec().has_calibration()) {
    facts.add_row({"calibration", job.spec().calibration().has_generated()
                                      ? "text of the original model"
                                      : printable(job.spec().calibration().dataset())});
  }
  facts.add_row({"evaluation", printable(job.spec().evaluation().dataset())});
  if (job.has_failure()) facts.add_row({"failure", failure_words(job.failure())});
  if (job.has_progress() && job.state() == v1::JOB_STATE_RUNNING) {
    facts.add_row({"progress", progress_line(job.progress(), 0)});
  }
  if (job.has_start_time() && job.has_end_time()) {
    facts.add_row(
        {"time", absl::StrCat(format_duration(seconds_between(job.start_time(), job.end_time())),
                              " running, ",
                              format_duration(seconds_between(job.create_time(), job.start_time())),
                              " queued")});
  }
  std::string text = facts.text();
  if (job.has_evaluation()) {
    absl::StrAppend(&text, "\n", result_text(job));
  } else if (job.has_forecast()) {
    absl::StrAppend(&text, "\n", forecast_text(job.forecast()));
  }
  return text;
}

}  // namespace qaas::cli
