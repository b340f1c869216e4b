#include "workers/engine/job/plan.h"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>
#include <vector>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/model_folder.h"
#include "storage/checkpoint/model_summary.h"
#include "workers/engine/job/artifact.h"
#include "workers/engine/job/available_memory.h"
#include "workers/engine/job/stage_options.h"
#include "workers/engine/model/compute_type.h"
#include "workers/engine/train/block_ap.h"

namespace qaas {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMostCalibrationWindows = 4096;
constexpr int64_t kMostEvaluationWindows = 256;
/// Bytes a second through reading, SHA-256 and writing; assumed, not measured.
constexpr double kDiskRate = 4e8;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string megabytes(int64_t bytes) {
  return absl::StrFormat("%.0f MB", static_cast<double>(bytes) / 1e6);
}

int64_t bytes_of(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) {
    const uintmax_t size = std::filesystem::file_size(path, error);
    return error ? 0 : static_cast<int64_t>(size);
  }
  int64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
    if (entry.is_regular_file(error)) bytes += static_cast<int64_t>(entry.file_size(error));
  }
  return bytes;
}

/// Sets `samples` where it was left out: what the dataset can hold at most, a token taking at least
/// one byte.
void bound_samples(v1::DataSelection& selection, const std::filesystem::path& dataset,
                   int64_t most) {
  if (selection.has_samples()) return;
  if (!dataset.empty()) {
    most = std::clamp<int64_t>(bytes_of(dataset) / selection.sequence_length(), 1, most);
  }
  selection.set_samples(static_cast<int32_t>(most));
}

/// Free bytes where `path` is, or will be, created; -1 where that cannot be told.
int64_t free_bytes(std::filesystem::path path) {
  std::error_code error;
  path = std::filesystem::absolute(path, error);
  while (!std::filesystem::exists(path, error) && path.has_parent_path() &&
         path != path.root_path()) {
    path = path.parent_path();
  }
  const auto space = std::filesystem::space(path, error);
  return error ? -1 : static_cast<int64_t>(space.available);
}

absl::Status refuse(const std::vector<FieldViolation>& violations) {
  if (violations.empty()) return absl::OkStatus();
  std::string text;
  for (const FieldViolation& violation : violations) {
    absl::StrAppend(&text, text.empty() ? "" : "; ", violation.field, ": ", violation.description);
  }
  return absl::InvalidArgumentError(text);
}

double passes_over_calibration(const v1::JobSpec& spec) {
  if (spec.method() == v1::METHOD_EFFICIENT_QAT) return spec.e2e_qp().epochs();
  if (spec.method() == v1::METHOD_DISTILLATION_QAT) return spec.distillation().epochs();
  return 0;
}

}  // namespace

RunLimits with_defaults(RunLimits limits) {
  if (limits.memory_bytes == 0) limits.memory_bytes = available_memory();
  if (limits.cache_bytes == 0) limits.cache_bytes = limits.memory_bytes / 4;
  return limits;
}

absl::StatusOr<Plan> plan_job(const v1::Job& job, const RunFolders& folders,
                              const RunLimits& limits) {
  const absl::StatusOr<ModelFolder> folder = ModelFolder::open(folders.model);
  if (!folder.ok()) return folder.status();
  const v1::Model model = summarize(*folder);
  if (const absl::Status status = refuse(validate(job.spec())); !status.ok()) return status;
  if (const absl::Status status = refuse(validate_for_model(job.spec(), model)); !status.ok()) {
    return status;
  }
  Plan plan{.job = job, .limits = with_defaults(limits)};
  v1::JobSpec& spec = *plan.job.mutable_spec();
  spec = with_defaults(job.spec(), model);
  bound_samples(*spec.mutable_evaluation(), folders.evaluation, kMostEvaluationWindows);
  plan.scored_tokens = int64_t{spec.evaluation().samples()} * spec.evaluation().sequence_length();
  if (spec.has_calibration()) {
    bound_samples(*spec.mutable_calibration(), folders.calibration, kMostCalibrationWindows);
    plan.window_tokens =
        int64_t{spec.calibration().samples()} * spec.calibration().sequence_length();
  }
  plan.footprint = footprint(spec, model, plan.limits.cache_bytes);
  plan.free_disk_bytes = free_bytes(folders.out.empty() ? "." : folders.out);
  return plan;
}

absl::Status estimate_time(Plan& plan, const RunFolders& folders) {
  const absl::StatusOr<ModelFolder> folder = ModelFolder::open(folders.model);
  if (!folder.ok()) return folder.status();
  const v1::JobSpec& spec = plan.job.spec();
  const ModelConfig& config = folder->config();
  const TensorSource source = source_tensors(*folder);
  Plan::Time time;
  // 1. A block as scoring runs it.
  const int64_t length = spec.evaluation().sequence_length();
  auto start = Clock::now();
  absl::StatusOr<DecoderBlock> block = load_block(config, source, 0);
  if (!block.ok()) return block.status();
  const double load_seconds = seconds_since(start);
  torch::manual_seed(static_cast<int64_t>(spec.seed()));
  const torch::Tensor window = torch::randn({1, length, config.hidden_size});
  const RopeTable rope = make_rope_table(config, length);
  run_block(*block, window, rope, torch::kFloat32);  // the first run also sets things up
  start = Clock::now();
  run_block(*block, window, rope, torch::kFloat32);
  time.scoring_rate = static_cast<double>(length) / seconds_since(start);
  const auto blocks = static_cast<double>(config.num_hidden_layers);
  const bool trains_blocks =
      spec.method() == v1::METHOD_EFFICIENT_QAT && spec.block_ap().epochs() > 0;
  const double scorings = trains_blocks ? 4 : 3;
  time.seconds =
      static_cast<double>(plan.footprint.original_bytes) / kDiskRate +
      scorings * ((blocks + 1) * static_cast<double>(plan.scored_tokens) / time.scoring_rate +
                  2 * blocks * load_seconds);
  // 2. Steps of Block-AP on it: the last of three, the first two set things up.
  const double epochs =
      (trains_blocks ? spec.block_ap().epochs() : 0) + passes_over_calibration(spec);
  if (epochs > 0) {
    BlockApOptions options = block_ap_options(spec, training_compute_type());
    const int64_t seq = spec.calibration().sequence_length();
    const auto batch =
        std::max<int64_t>(1, trains_blocks ? options.batch_size : spec.e2e_qp().micro_batch_size());
    options.epochs = 3;
    options.batch_size = batch;
    options.validation_windows = 0;
    const torch::Tensor inputs = torch::randn({batch, seq, config.hidden_size});
    prepare_block(*block, grids_of_block(spec, 0));
    Clock::time_point last;
    const StepSink on_step = [&](const TrainingStep& step) {
      if (step.step == 2) last = Clock::now();
    };
    const absl::StatusOr<TrainingReport> trained =
        block_ap(*block, inputs, inputs, make_rope_table(config, seq), options, on_step, {});
    if (!trained.ok()) return trained.status();
    time.training_rate = static_cast<double>(batch * seq) / seconds_since(last);
    const auto tokens = static_cast<double>(plan.window_tokens);
    time.seconds +=
        blocks *
        (tokens * (epochs / time.training_rate + (trains_blocks ? 2 / time.scoring_rate : 0)) +
         (trains_blocks ? 4 * load_seconds : 0));
  }
  plan.time = time;
  return absl::OkStatus();
}

absl::Status check_fits(const Plan& plan) {
  const Footprint& needs = plan.footprint;
  if (needs.memory_bytes > plan.limits.memory_bytes) {
    const auto largest =
        std::max_element(needs.stages.begin(), needs.stages.end(),
                         [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
    return absl::ResourceExhaustedError(absl::StrCat(
        "memory: the job needs ", megabytes(needs.memory_bytes), " (", largest->stage, " ",
        megabytes(largest->bytes), "), there are ", megabytes(plan.limits.memory_bytes),
        "; --memory-limit and --cache-budget change what may be used"));
  }
  if (plan.free_disk_bytes >= 0 && needs.disk_bytes > plan.free_disk_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "disk: the job writes ", megabytes(needs.disk_bytes), " (artifact ",
        megabytes(needs.artifact_bytes), ", spilled activations ", megabytes(needs.spilled_bytes),
        "), there are ", megabytes(plan.free_disk_bytes), " free"));
  }
  return absl::OkStatus();
}

std::string Plan::to_text() const {
  std::string text;
  const auto row = [&text](const std::string& name, const std::string& value) {
    absl::StrAppendFormat(&text, "%-34s %14s\n", name, value);
  };
  for (const StageMemory& stage : footprint.stages) {
    row(absl::StrCat("memory, ", stage.stage),
        megabytes(stage.bytes +
                  (stage.caches ? footprint.cache_bytes - footprint.spilled_bytes : 0)));
  }
  row("memory, peak", megabytes(footprint.memory_bytes));
  row("memory, limit", megabytes(limits.memory_bytes));
  row("activation caches", megabytes(footprint.cache_bytes));
  row("  of them in files", megabytes(footprint.spilled_bytes));
  row("disk, written at the peak", megabytes(footprint.disk_bytes));
  row("disk, free", free_disk_bytes < 0 ? "unknown" : megabytes(free_disk_bytes));
  row("artifact", megabytes(footprint.artifact_bytes));
  if (time.has_value()) {
    row("time, about", absl::StrFormat("%.0f s", time->seconds));
    row("  measured: scoring a block", absl::StrFormat("%.0f tokens/s", time->scoring_rate));
    if (time->training_rate > 0) {
      row("  measured: training a block", absl::StrFormat("%.0f tokens/s", time->training_rate));
    }
  }
  return text;
}

std::string Plan::to_json() const {
  nlohmann::ordered_json stages = nlohmann::ordered_json::array();
  for (const StageMemory& stage : footprint.stages) {
    stages.push_back(
        {{"stage", stage.stage}, {"memory_bytes", stage.bytes}, {"caches", stage.caches}});
  }
  nlohmann::ordered_json json = {{"fits", check_fits(*this).ok()},
                                 {"memory_bytes", footprint.memory_bytes},
                                 {"memory_limit_bytes", limits.memory_bytes},
                                 {"stages", std::move(stages)},
                                 {"cache_bytes", footprint.cache_bytes},
                                 {"cache_budget_bytes", limits.cache_bytes},
                                 {"spilled_bytes", footprint.spilled_bytes},
                                 {"disk_bytes", footprint.disk_bytes},
                                 {"free_disk_bytes", free_disk_bytes},
                                 {"artifact_bytes", footprint.artifact_bytes}};
  if (time.has_value()) {
    json["seconds"] = time->seconds;
    json["scoring_tokens_per_second"] = time->scoring_rate;
    if (time->training_rate > 0) json["training_tokens_per_second"] = time->training_rate;
  }
  return json.dump(2) + "\n";
}

}  // namespace qaas
