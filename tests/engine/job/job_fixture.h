#pragma once

#include <string>
#include <vector>

#include <torch/torch.h>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_llama.h"
#include "workers/engine/job/run_job.h"

namespace qaas::testing {

/// What a run told, by kind.
struct RunLog {
  std::vector<v1::Phase> phases;
  std::vector<int> trained_blocks;
  std::vector<std::string> checkpoints, warnings, files;
  v1::Evaluation evaluation;

  void add(const v1::EngineEvent& event) {
    if (event.has_phase_started()) phases.push_back(event.phase_started().phase());
    if (event.has_block_finished()) trained_blocks.push_back(event.block_finished().block());
    if (event.has_checkpoint_written()) checkpoints.push_back(event.checkpoint_written().file());
    if (event.has_warning()) warnings.push_back(event.warning().message());
    if (event.has_evaluation()) evaluation = event.evaluation();
    const auto& written = event.artifact_written().files();
    files.insert(files.end(), written.begin(), written.end());
  }
};

/// The paper's recipe at 2 bits, small and hasty: 8 windows of 16 tokens, two epochs of each stage.
inline v1::JobSpec tiny_spec() {
  v1::JobSpec spec;
  spec.set_model("models/tiny");
  spec.set_method(v1::METHOD_EFFICIENT_QAT);
  spec.mutable_weights()->set_bits(2);
  spec.mutable_weights()->set_group_size(32);
  spec.mutable_calibration()->set_dataset("datasets/calibration");
  spec.mutable_calibration()->set_samples(8);
  spec.mutable_calibration()->set_sequence_length(16);
  spec.mutable_evaluation()->set_dataset("datasets/evaluation");
  spec.mutable_evaluation()->set_samples(6);
  spec.mutable_evaluation()->set_sequence_length(20);
  spec.mutable_block_ap()->set_quant_learning_rate(1e-3);
  spec.mutable_block_ap()->set_weight_learning_rate(1e-3);
  spec.mutable_block_ap()->set_shuffle(true);
  spec.mutable_e2e_qp()->set_epochs(2);
  spec.mutable_e2e_qp()->set_batch_size(4);
  spec.mutable_e2e_qp()->set_learning_rate(1e-3);
  return spec;
}

/// The same without training.
inline v1::JobSpec tiny_rounding_spec(int bits, int group_size) {
  v1::JobSpec spec = tiny_spec();
  spec.set_method(v1::METHOD_ROUND_TO_NEAREST);
  spec.mutable_weights()->set_bits(bits);
  spec.mutable_weights()->set_group_size(group_size);
  spec.clear_calibration();
  spec.clear_block_ap();
  spec.clear_e2e_qp();
  return spec;
}

/// A tiny model, two datasets (20 windows of 16, 7 of 20) and folders for runs.
class JobTest : public ::testing::Test {
 protected:
  explicit JobTest(const TinyLlamaOptions& options = {.blocks = 3, .dtype = Dtype::kF16})
      : model_(write_tiny_llama(folder_ / "model", options)) {
    at::set_num_threads(1);  // more would only wait for each other over so small a model
    write_ids(folder_ / "calibration", 20 * 16, options.vocab, 3);
    write_ids(folder_ / "evaluation", 7 * 20, options.vocab, 4);
  }

  /// Folders of run `name`: its artifact and checkpoints have places of their own.
  RunFolders folders(const std::string& name) const {
    return {.model = folder_ / "model",
            .calibration = folder_ / "calibration",
            .evaluation = folder_ / "evaluation",
            .out = folder_ / (name + ".out"),
            .checkpoints = folder_ / (name + ".checkpoints")};
  }

  absl::Status run(const v1::JobSpec& spec, const std::string& name, RunLog* log = nullptr,
                   std::stop_token stop = {}) const {
    v1::Job job;
    *job.mutable_spec() = spec;
    return run_job(
        job, folders(name),
        [&](const v1::EngineEvent& e) {
          if (log != nullptr) log->add(e);
        },
        stop);
  }

  /// Bytes of the artifact's weights.
  std::string weights(const std::string& name) const {
    return read_file(folders(name).out / "model.safetensors");
  }

  TemporaryFolder folder_;
  ModelFolder model_;
};

}  // namespace qaas::testing
