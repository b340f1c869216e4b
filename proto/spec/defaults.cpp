#include <algorithm>
#include <cstdint>
#include <limits>

#include "proto/spec/job_spec.h"

namespace qaas {
namespace {

constexpr int kDefaultSequenceLength = 2048;
constexpr int kDefaultE2eBatch = 32;
constexpr int kDefaultMicroBatch = 4;
constexpr int64_t kAssumedTokensPerParameter = 20;

void fill_grid(v1::WeightQuantization& grid) {
  if (!grid.has_group_size()) grid.set_group_size(grid.bits() == 2 ? 64 : 128);
  if (!grid.has_symmetric()) grid.set_symmetric(grid.bits() == 4 || grid.bits() == 8);
}

// `samples` stays as it is: how many windows a dataset holds is known only where it is read.
void fill_selection(v1::DataSelection& selection, const v1::Model& model,
                    v1::WindowSampling sampling) {
  if (!selection.has_sequence_length()) {
    const int longest = model.max_position_embeddings();
    selection.set_sequence_length(longest > 0 ? std::min(longest, kDefaultSequenceLength)
                                              : kDefaultSequenceLength);
  }
  if (selection.sampling() == v1::WINDOW_SAMPLING_UNSPECIFIED) selection.set_sampling(sampling);
}

template <typename Options>
void fill_adam(Options& options) {
  if (!options.has_adam_beta1()) options.set_adam_beta1(0.9);
  if (!options.has_adam_beta2()) options.set_adam_beta2(0.999);
  if (!options.has_adam_epsilon()) options.set_adam_epsilon(1e-8);
  if (!options.has_weight_decay()) options.set_weight_decay(0);
}

void fill_block_ap(v1::BlockApOptions& options, int bits) {
  if (!options.has_epochs()) options.set_epochs(2);
  if (!options.has_batch_size()) options.set_batch_size(2);
  if (!options.has_quant_learning_rate()) options.set_quant_learning_rate(1e-4);
  if (!options.has_weight_learning_rate()) {
    options.set_weight_learning_rate(bits == 2 ? 2e-5 : 1e-5);
  }
  if (!options.has_final_learning_rate_ratio()) options.set_final_learning_rate_ratio(0.05);
  if (!options.has_gradient_clip_norm()) options.set_gradient_clip_norm(0);
  if (!options.has_shuffle()) options.set_shuffle(false);
  fill_adam(options);
}

void fill_e2e_qp(v1::EndToEndOptions& options, int bits, const v1::DataSelection& calibration) {
  if (!options.has_epochs()) options.set_epochs(1);
  if (!options.has_batch_size()) {
    options.set_batch_size(calibration.has_samples()
                               ? std::clamp(calibration.samples(), 1, kDefaultE2eBatch)
                               : kDefaultE2eBatch);
  }
  if (!options.has_micro_batch_size()) {
    options.set_micro_batch_size(std::min(options.batch_size(), kDefaultMicroBatch));
  }
  if (!options.has_learning_rate()) options.set_learning_rate(bits == 2 ? 2e-5 : 1e-5);
  if (options.schedule() == v1::LEARNING_RATE_SCHEDULE_UNSPECIFIED) {
    options.set_schedule(v1::LEARNING_RATE_SCHEDULE_COSINE);
  }
  const bool warms_up = options.schedule() == v1::LEARNING_RATE_SCHEDULE_COSINE;
  if (warms_up && !options.has_warmup_ratio()) options.set_warmup_ratio(0.03);
  if (!options.has_gradient_clip_norm()) options.set_gradient_clip_norm(0.3);
  if (!options.has_shuffle()) options.set_shuffle(false);
  fill_adam(options);
}

int64_t assumed_pretraining_tokens(int64_t parameters) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max() / kAssumedTokensPerParameter;
  return kAssumedTokensPerParameter * std::clamp<int64_t>(parameters, 1, kMost);
}

}  // namespace

v1::JobSpec with_defaults(const v1::JobSpec& spec, const v1::Model& model) {
  v1::JobSpec full = spec;
  fill_grid(*full.mutable_weights());
  for (v1::ProjectionOverride& exception : *full.mutable_overrides()) {
    if (exception.has_weights()) fill_grid(*exception.mutable_weights());
  }
  if (full.target_runtimes().empty()) full.add_target_runtimes(v1::TARGET_RUNTIME_GPTQMODEL);
  if (full.has_calibration()) {
    fill_selection(*full.mutable_calibration(), model, v1::WINDOW_SAMPLING_RANDOM);
  }
  fill_selection(*full.mutable_evaluation(), model, v1::WINDOW_SAMPLING_FIRST);
  if (!full.has_seed()) full.set_seed(2);
  if (full.method() == v1::METHOD_EFFICIENT_QAT) {
    fill_block_ap(*full.mutable_block_ap(), full.weights().bits());
    fill_e2e_qp(*full.mutable_e2e_qp(), full.weights().bits(), full.calibration());
  }
  if (!full.has_pretraining_tokens()) {
    full.set_pretraining_tokens(assumed_pretraining_tokens(model.non_embedding_parameter_count()));
  }
  return full;
}

}  // namespace qaas
