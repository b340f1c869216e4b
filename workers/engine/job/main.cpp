// qaas-engine: one job from spec to artifact, and the evaluation of any folder, without a service.

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <malloc.h>
#include <memory>
#include <semaphore.h>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <absl/strings/str_cat.h>
#include <google/protobuf/util/json_util.h>

#include "workers/engine/job/evaluate_folder.h"
#include "workers/engine/job/event_writer.h"
#include "workers/engine/job/failure.h"
#include "workers/engine/job/plan.h"
#include "workers/engine/job/run_job.h"
#include "workers/engine/job/version.h"
#include "workers/engine/report/report_files.h"

namespace qaas {
namespace {

struct RunFlags {
  std::string spec, job, model, calibration, evaluation, out, checkpoints;
  std::vector<std::string> further_evaluations, tasks;
  int events_fd = -1;
  uint64_t memory_limit = 0, cache_budget = 0;  ///< 0: the machine's
  bool json = false;                            ///< plan only

  RunFolders folders() const {
    return {.model = model,
            .calibration = calibration,
            .evaluation = evaluation,
            .further_evaluations = {further_evaluations.begin(), further_evaluations.end()},
            .tasks = {tasks.begin(), tasks.end()},
            .out = out,
            .checkpoints = checkpoints.empty() ? out + ".checkpoints" : checkpoints};
  }
  RunLimits limits() const {
    return {.memory_bytes = static_cast<int64_t>(memory_limit),
            .cache_bytes = static_cast<int64_t>(cache_budget)};
  }
};

/// A file's text; the largest spec anyone needs is far below the limit.
absl::StatusOr<std::string> read_small_file(const std::string& path) {
  constexpr uintmax_t kLimit = 4 << 20;
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.message()));
  if (size > kLimit) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", size, " bytes, expected at most ", kLimit));
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

template <class Message>
absl::Status parse_json(const std::string& path, Message& message) {
  const absl::StatusOr<std::string> text = read_small_file(path);
  if (!text.ok()) return text.status();
  const auto status = google::protobuf::util::JsonStringToMessage(*text, &message);
  if (status.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", status.ToString()));
}

/// The name a folder or file stands for in a spec; "dir/" names "dir" too.
std::string name_of(const std::string& path) {
  const std::filesystem::path normal = std::filesystem::path(path).lexically_normal();
  return (normal.has_filename() ? normal : normal.parent_path()).filename().string();
}

/// Names what the folders of `flag` are for, where the spec does not; there must be as many of
/// both.
template <class Add, class Name>
absl::Status name_folders(const char* flag, const char* field,
                          const std::vector<std::string>& folders, int entries, const Add& add,
                          const Name& name) {
  if (entries == 0) {
    entries = static_cast<int>(folders.size());
    for (int i = 0; i < entries; ++i) add();
  }
  if (entries != static_cast<int>(folders.size())) {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": found ", folders.size(),
                                                   "; expected one for each of the spec's ",
                                                   entries, " ", field, ", in their order"));
  }
  for (int i = 0; i < entries; ++i) {
    if (name(i)->empty()) *name(i) = "datasets/" + name_of(folders[i]);
  }
  return absl::OkStatus();
}

absl::Status name_further_data(const RunFlags& flags, v1::JobSpec& spec) {
  if (const absl::Status status = name_folders(
          "--further-evaluation", "further_evaluations", flags.further_evaluations,
          spec.further_evaluations_size(), [&] { spec.add_further_evaluations(); },
          [&](int i) { return spec.mutable_further_evaluations(i)->mutable_dataset(); });
      !status.ok()) {
    return status;
  }
  return name_folders(
      "--task", "tasks", flags.tasks, spec.tasks_size(), [&] { spec.add_tasks(); },
      [&](int i) { return spec.mutable_tasks(i); });
}

/// The job to run: as the service stored it, or made from a spec whose names may be left out (the
/// folders say what is meant).
absl::StatusOr<v1::Job> read_job(const RunFlags& flags) {
  v1::Job job;
  if (!flags.job.empty()) {
    if (const absl::Status status = parse_json(flags.job, job); !status.ok()) return status;
    if (const absl::Status status = name_further_data(flags, *job.mutable_spec()); !status.ok()) {
      return status;
    }
    return job;
  }
  v1::JobSpec& spec = *job.mutable_spec();
  if (const absl::Status status = parse_json(flags.spec, spec); !status.ok()) return status;
  if (spec.model().empty()) spec.set_model("models/" + name_of(flags.model));
  if (!flags.calibration.empty() && spec.calibration().dataset().empty()) {
    spec.mutable_calibration()->set_dataset("datasets/" + name_of(flags.calibration));
  }
  if (spec.evaluation().dataset().empty() && !flags.evaluation.empty()) {
    spec.mutable_evaluation()->set_dataset("datasets/" + name_of(flags.evaluation));
  }
  if (const absl::Status status = name_further_data(flags, spec); !status.ok()) return status;
  return job;
}

/// Refuses what cannot fit before any work, then runs it.
absl::Status run_within_limits(const v1::Job& job, const RunFlags& flags, const EventSink& sink,
                               std::stop_token stop) {
  RunFolders folders = flags.folders();
  const absl::StatusOr<Plan> plan = plan_job(job, folders, flags.limits());
  if (!plan.ok()) return plan.status();
  if (const absl::Status status = check_fits(*plan); !status.ok()) return status;
  folders.cache_bytes = plan->limits.cache_bytes;
  return run_job(job, folders, sink, stop);
}

int plan(const RunFlags& flags) {
  absl::Status status;
  try {
    const absl::StatusOr<v1::Job> job = read_job(flags);
    absl::StatusOr<Plan> plan =
        job.ok() ? plan_job(*job, flags.folders(), flags.limits()) : job.status();
    status = plan.status();
    if (status.ok()) {
      status = check_fits(*plan);
      // Measuring takes the memory of a block in training, which has to be there.
      absl::Status timed;
      if (status.ok()) timed = estimate_time(*plan, flags.folders());
      std::cout << (flags.json ? plan->to_json() : plan->to_text());
      if (!timed.ok()) status = timed;
    }
  } catch (const std::exception& error) {
    status = status_of(error);
  }
  if (!status.ok()) std::cerr << "error: " << status.message() << "\n";
  return exit_code_of(status);
}

int run(const RunFlags& flags, std::stop_token stop) {
  EventWriter writer =
      flags.events_fd >= 0 ? EventWriter::to_pipe(flags.events_fd) : EventWriter::to_person();
  std::string position = "loading";
  const EventSink sink = [&](const v1::EngineEvent& event) {
    if (event.has_phase_started()) position = phase_name(event.phase_started().phase());
    // The block in training, counted from 1; after the last one its scoring.
    const v1::Progress& progress = event.progress();
    if (progress.phase() == v1::PHASE_BLOCK_TRAINING && progress.loss() > 0) {
      position = absl::StrCat("block ", progress.block() + 1);
    }
    if (const v1::BlockFinished& done = event.block_finished(); event.has_block_finished()) {
      const bool last = done.block() + 1 == done.block_count();
      position = last ? "after the last block" : absl::StrCat("block ", done.block() + 2);
    }
    writer.write(event);
  };
  absl::Status status;
  try {
    const absl::StatusOr<v1::Job> job = read_job(flags);
    status = job.ok() ? run_within_limits(*job, flags, sink, stop) : job.status();
  } catch (const std::exception& error) {
    status = status_of(error);
  }
  if (!status.ok()) {
    v1::EngineEvent event;
    *event.mutable_failure() = failure_of(status);
    event.mutable_failure()->set_position(position);
    writer.write(event);
  }
  return exit_code_of(status);
}

enum class EvaluationOutput { kText, kJson };

int evaluate(const EvaluateOptions& options, EvaluationOutput output, std::stop_token stop) {
  absl::Status status;
  try {
    const absl::StatusOr<FolderScore> result = evaluate_folder(options, stop);
    status = result.status();
    if (result.ok()) {
      std::cout << (output == EvaluationOutput::kJson ? result->to_json() : result->to_text());
    }
  } catch (const std::exception& error) {
    status = status_of(error);
  }
  if (!status.ok()) std::cerr << "error: " << status.message() << "\n";
  return exit_code_of(status);
}

/// Draws report.html anew from report.json.
int redraw(const std::string& folder) {
  const absl::StatusOr<v1::RunReport> report = read_report(folder);
  const absl::Status status = report.ok() ? write_report_page(*report, folder) : report.status();
  if (!status.ok()) std::cerr << "error: " << status.message() << "\n";
  return exit_code_of(status);
}

sem_t stop_signals;  // posted by the handler: nothing else of use is safe in one

/// SIGTERM and SIGINT become a stop request while this lives. A handler, not a blocked signal that
/// a thread waits for: libraries start threads of their own when they are loaded, which know
/// nothing of a mask set here, and the default action would end the process through one of them.
class StopOnSignals {
 public:
  explicit StopOnSignals(std::stop_source stop) {
    sem_init(&stop_signals, /*pshared=*/0, /*value=*/0);
    watcher_ = std::thread([this, stop]() mutable {
      while (sem_wait(&stop_signals) != 0) {
      }
      if (!ending_) stop.request_stop();
    });
    struct sigaction action = {};
    action.sa_handler = [](int) {
      const int saved = errno;
      sem_post(&stop_signals);
      errno = saved;
    };
    action.sa_flags = SA_RESTART;
    sigaction(SIGTERM, &action, nullptr);
    sigaction(SIGINT, &action, nullptr);
  }
  ~StopOnSignals() {
    ending_ = true;
    sem_post(&stop_signals);
    watcher_.join();
  }

 private:
  std::atomic<bool> ending_ = false;
  std::thread watcher_;
};

/// Large tensors come and go every step; without this each would be mapped and faulted in anew,
/// which costs as much as the arithmetic.
void keep_freed_memory() {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
}

}  // namespace
}  // namespace qaas

int main(int argc, char** argv) {
  CLI::App app{
      "Quantizes one model, or scores a model or artifact, without a service.\n"
      "Exit status: 0 done; 1 internal error; 2 the job, its files or the command line cannot "
      "work;\n"
      "3 out of memory or disk; 75 stopped by SIGTERM or SIGINT (run again to resume)."};
  app.set_version_flag("--version", absl::StrCat("qaas-engine ", qaas::kEngineVersion));
  app.require_subcommand(1);
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  app.add_option("--threads", threads, "Threads for all arithmetic (default: all cores)")
      ->check(CLI::Range(1, 1024));

  qaas::RunFlags flags;
  CLI::App* run = app.add_subcommand("run", "Run one job and write its artifact");
  CLI::App* plan = app.add_subcommand(
      "plan", "Print the memory, disk and time a job would take; exit status 3 if it cannot fit");
  for (CLI::App* command : {run, plan}) {
    command->fallthrough();
    auto* spec =
        command->add_option("--spec", flags.spec, "Job spec as proto JSON (qaas.v1.JobSpec)");
    command
        ->add_option("--job", flags.job, "Job as proto JSON (qaas.v1.Job), as the worker passes it")
        ->excludes(spec);
    command->add_option("--model", flags.model, "Model folder")->required();
    command->add_option("--calibration", flags.calibration,
                        "Dataset folder or file that training reads (.txt, .jsonl, .ids)");
    command->add_option("--evaluation", flags.evaluation, "Dataset folder or file to evaluate on")
        ->required(command == run);
    command
        ->add_option("--further-evaluation", flags.further_evaluations,
                     "Another one to score on; repeatable, in the order of further_evaluations")
        ->allow_extra_args(false);
    command
        ->add_option("--task", flags.tasks,
                     "Folder or .jsonl file of a multiple-choice task; repeatable, in the order of "
                     "tasks")
        ->allow_extra_args(false);
    command->add_option("--out", flags.out, "Folder for the artifact; created by run")
        ->required(command == run);
    command
        ->add_option("--memory-limit", flags.memory_limit,
                     "Refuse a job that needs more anonymous memory, for example 12GB (default: "
                     "what the machine or control group has left)")
        ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true));
    command
        ->add_option("--cache-budget", flags.cache_budget,
                     "Memory for the activations of all windows; what is beyond it goes to files "
                     "(default: a quarter of the memory limit)")
        ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true));
  }
  run->add_option("--checkpoints", flags.checkpoints,
                  "Folder to resume from and to write checkpoints to (default: OUT.checkpoints)");
  run->add_option("--events-fd", flags.events_fd,
                  "Write events to this descriptor as length-delimited qaas.v1.EngineEvent");
  plan->add_flag("--json", flags.json, "Print one JSON object instead of a table");

  qaas::EvaluateOptions options;
  bool json = false;
  CLI::App* eval = app.add_subcommand(
      "evaluate", "Score a model or artifact folder on texts and multiple-choice tasks");
  eval->alias("eval");
  eval->fallthrough();
  eval->add_option("--model", options.model, "Model or artifact folder")->required();
  eval->add_option("--evaluation", options.texts,
                   "Dataset folders or files (.txt, .jsonl, .ids): perplexity");
  eval->add_option(
      "--tasks", options.tasks,
      "Zero-shot multiple-choice files (.jsonl): accuracy. One JSON object a line, as "
      "ARC, BoolQ, HellaSwag, PIQA and WinoGrande publish them, or query, choices, gold");
  eval->add_option("--original", options.original,
                   "Original model folder: also compare with it on the same texts and tasks");
  eval->add_option("--sequence-length", options.sequence_length,
                   "Tokens per window (default: 2048, or the model's maximum where smaller)")
      ->check(CLI::Range(2, 131072));
  eval->add_option("--samples", options.samples, "Windows a text (default: all, at most 256)")
      ->check(CLI::Range(1, 1000000));
  eval->add_option("--questions", options.questions, "First questions a task (default: all)")
      ->check(CLI::Range(1, 100000000));
  eval->add_flag("--json", json, "Print one JSON object instead of text");

  std::string report_folder;
  CLI::App* report = app.add_subcommand("report", "Draw report.html anew from report.json");
  report->add_option("FOLDER", report_folder, "Artifact folder")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {  // --help and --version too
    return app.exit(error) == 0 ? qaas::kExitOk : qaas::kExitCaller;
  }
  if (report->parsed()) return qaas::redraw(report_folder);
  if (!eval->parsed() && flags.spec.empty() && flags.job.empty()) {
    std::cerr << (run->parsed() ? "run" : "plan") << ": one of --spec and --job is required\n";
    return qaas::kExitCaller;
  }

  qaas::keep_freed_memory();
  std::stop_source stop;
  const qaas::StopOnSignals stop_on_signals(stop);
  std::signal(SIGPIPE, SIG_IGN);
  at::set_num_threads(threads);
  if (plan->parsed()) return qaas::plan(flags);
  return run->parsed()
             ? qaas::run(flags, stop.get_token())
             : qaas::evaluate(options,
                              json ? qaas::EvaluationOutput::kJson : qaas::EvaluationOutput::kText,
                              stop.get_token());
}
