#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "proto/spec/grids.h"
#include "proto/spec/job_spec.h"
#include "proto/spec/presets.h"

namespace qaas {
namespace {

constexpr int kDefaultSequenceLength = 2048;
constexpr int kDefaultMicroBatch = 4;
constexpr int kDefaultGreedyTokens = 4;  // arXiv 2305.17888: the first 3 to 5
constexpr int64_t kAssumedTokensPerParameter = 20;

void fill_grid(v1::WeightQuantization& grid) {
  if (!grid.has_group_size()) grid.set_group_size(grid.bits() == 2 ? 64 : 128);
  if (!grid.has_symmetric()) grid.set_symmetric(grid.bits() == 4 || grid.bits() == 8);
}

// `samples` stays as it is: how many windows a dataset holds is known only where it is read; so is
// begin_of_sequence, which the tokenizer decides.
void fill_selection(v1::DataSelection& selection, const v1::Model& model,
                    v1::WindowSampling sampling) {
  if (!selection.has_sequence_length()) {
    const int longest = model.max_position_embeddings();
    selection.set_sequence_length(longest > 0 ? std::min(longest, kDefaultSequenceLength)
                                              : kDefaultSequenceLength);
  }
  if (selection.has_generated()) {
    v1::GeneratedText& generated = *selection.mutable_generated();
    if (!generated.has_greedy_tokens()) generated.set_greedy_tokens(kDefaultGreedyTokens);
    if (!generated.has_temperature()) generated.set_temperature(1);
    return;
  }
  if (selection.sampling() == v1::WINDOW_SAMPLING_UNSPECIFIED) selection.set_sampling(sampling);
  if (!selection.has_parse_special_tokens()) selection.set_parse_special_tokens(false);
  if (selection.packing() == v1::PACKING_UNSPECIFIED) {
    selection.set_packing(v1::PACKING_CONCATENATE);
  }
}

/// Puts the caller's `written` options over a preset's.
template <typename Options>
void put_over(Options preset, Options& written) {
  preset.MergeFrom(written);
  written = std::move(preset);
}

void fill_initialisation(v1::JobSpec& spec) {
  v1::Initialisation preset = initialisation_preset(spec.method(), spec.preset());
  preset.MergeFrom(spec.initialisation());
  const bool aware_given = spec.initialisation().has_activation_aware();
  *spec.mutable_initialisation() = std::move(preset);
  // A preset's weighing has nothing to weigh where the caller chose a start without a search.
  if (!aware_given && !uses_clip_search(spec)) {
    spec.mutable_initialisation()->set_activation_aware(false);
  }
  if (uses_gptq(spec)) return;
  spec.mutable_initialisation()->clear_gptq_qparams();
  spec.mutable_initialisation()->clear_gptq_damping();
  spec.mutable_initialisation()->clear_gptq_activation_order();
}

void fill_block_ap(v1::JobSpec& spec) {
  v1::BlockApOptions& options = *spec.mutable_block_ap();
  put_over(block_ap_preset(spec.preset(), spec.weights().bits()), options);
  const bool absolute = options.learning_rate_unit() == v1::LEARNING_RATE_UNIT_ABSOLUTE;
  if (!options.has_zero_point_learning_rate()) {
    options.set_zero_point_learning_rate(options.quant_learning_rate());
  }
  // Norms have no step size to measure a rate in.
  if (!options.has_norm_learning_rate()) {
    options.set_norm_learning_rate(absolute ? options.weight_learning_rate() : 0);
  }
  if (!options.has_restore_best()) options.set_restore_best(options.validation_samples() > 0);
}

void fill_end_to_end(v1::EndToEndOptions& options, v1::EndToEndOptions preset,
                     const v1::DataSelection& calibration) {
  const bool batch_given = options.has_batch_size();
  const bool warmup_given = options.has_warmup_ratio();
  put_over(std::move(preset), options);
  if (calibration.has_samples() && !batch_given) {
    const int64_t windows =
        static_cast<int64_t>(calibration.samples()) - options.validation_samples();
    options.set_batch_size(static_cast<int>(std::clamp<int64_t>(windows, 1, options.batch_size())));
  }
  if (!options.has_micro_batch_size()) {
    options.set_micro_batch_size(std::min(options.batch_size(), kDefaultMicroBatch));
  }
  // A constant rate does not warm up.
  if (options.schedule() == v1::LEARNING_RATE_SCHEDULE_CONSTANT && !warmup_given) {
    options.clear_warmup_ratio();
  }
  put_over(objective_preset(options.objective().kind()), *options.mutable_objective());
  if (!options.has_restore_best()) options.set_restore_best(options.validation_samples() > 0);
}

void fill_activations(v1::ActivationQuantization& activations) {
  if (!activations.has_group_size()) activations.set_group_size(-1);
  if (!activations.has_down_proj_bits()) activations.set_down_proj_bits(activations.bits());
  if (!activations.has_learn_clip()) activations.set_learn_clip(false);
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
  for (v1::DataSelection& further : *full.mutable_further_evaluations()) {
    fill_selection(further, model, v1::WINDOW_SAMPLING_FIRST);
  }
  if (!full.has_seed()) full.set_seed(2);
  if (full.method() == v1::METHOD_EFFICIENT_QAT) {
    if (full.preset() == v1::PRESET_UNSPECIFIED) full.set_preset(v1::PRESET_PAPER);
    fill_block_ap(full);
    fill_end_to_end(*full.mutable_e2e_qp(), e2e_qp_preset(full.preset(), full.weights().bits()),
                    full.calibration());
  }
  if (full.method() == v1::METHOD_DISTILLATION_QAT) {
    fill_end_to_end(*full.mutable_distillation(), distillation_preset(), full.calibration());
  }
  fill_initialisation(full);
  if (full.has_activations()) fill_activations(*full.mutable_activations());
  if (!full.has_lm_head_bits()) full.set_lm_head_bits(0);
  if (!full.has_embedding_bits()) full.set_embedding_bits(0);
  if (!full.has_signal_report()) full.set_signal_report(false);
  if (full.automatic().has_average_bits() && full.automatic().candidate_bits().empty()) {
    for (const int bits : {2, 3, 4, 8}) full.mutable_automatic()->add_candidate_bits(bits);
  }
  if (!full.has_pretraining_tokens()) {
    full.set_pretraining_tokens(assumed_pretraining_tokens(model.non_embedding_parameter_count()));
  }
  return full;
}

}  // namespace qaas
