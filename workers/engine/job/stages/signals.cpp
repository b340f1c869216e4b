#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "proto/spec/grids.h"
#include "proto/spec/job_spec.h"
#include "workers/engine/eval/automatic_choice.h"
#include "workers/engine/eval/signal_report.h"
#include "workers/engine/job/artifact.h"
#include "workers/engine/job/stage_options.h"
#include "workers/engine/job/stages/stages.h"

namespace qaas::stages {
namespace {

/// The calibration windows that signals are measured on.
torch::Tensor signal_ids(const JobState& state) {
  const torch::Tensor& ids = state.inputs.calibration;
  return ids.narrow(0, 0, std::min<int64_t>(ids.size(0), kMostSignalWindows));
}

SignalInputs signal_inputs(const JobState& state, const torch::Tensor& ids, const RopeTable& rope) {
  return {.ends = state.source_ends,
          .block_count = state.block_count(),
          .original = [&state](int64_t index) { return dense_block(*state.source, index); },
          .ids = ids,
          .rope = rope,
          .stop = state.stop};
}

/// Blocks on the grids of `spec`, started as it says where that needs no data, else from a clip
/// search: what sensitivities are measured with before anything trains.
BlockSource started_blocks(const JobState& state, v1::JobSpec spec) {
  return [&state, spec = std::move(spec)](int64_t index) -> absl::StatusOr<DecoderBlock> {
    absl::StatusOr<DecoderBlock> block = dense_block(*state.source, index);
    if (!block.ok()) return block.status();
    InitialiseOptions options = initialise_options(spec, index, torch::kFloat32);
    options.clip_importance = ClipImportance::kUniform;
    options.initializer = [inner = options.initializer](const std::string& name) {
      const Initializer asked = inner(name);
      return asked == Initializer::kGptq ? Initializer::kClipSearch : asked;
    };
    const absl::Status status =
        initialise_block(*block, grids_of_block(spec, index), options, {}, {}, state.stop);
    if (!status.ok()) return status;
    apply_activation_quantization(*block, activations_of_block(spec, index));
    return make_packed_block(state.config(), source_tensors(*state.source), index,
                             convert_block(*block));
  };
}

/// Number of weights of every decoder projection, by full name.
std::map<std::string, int64_t> weight_counts(const JobState& state) {
  std::map<std::string, int64_t> counts;
  for (const Projection2d& projection : decoder_projections(state.config())) {
    counts[projection.name] = projection.output_size * projection.input_size;
  }
  return counts;
}

/// A spec that gives every projection of the base grid `bits`.
v1::JobSpec at_width(v1::JobSpec spec, int bits) {
  spec.mutable_weights()->set_bits(bits);
  return spec;
}

bool on_base_grid(const v1::JobSpec& spec, const std::string& name) {
  return grid_message_for(spec, name) == &spec.weights();
}

/// Bits of memory of a projection on the base grid at `bits`: codes, fp16 scales, zero points.
int64_t stored_bits(const Projection2d& projection, int64_t group_size, int bits) {
  const int64_t weights = projection.output_size * projection.input_size;
  constexpr int64_t kScaleBits = 16;
  return weights * bits + weights / group_size * (kScaleBits + bits);
}

/// Measures every projection at every width and enters the choice into the spec as overrides.
absl::Status choose_widths(JobState& state, const SignalInputs& inputs) {
  const v1::AutomaticChoice& asked = state.spec.automatic();
  const std::vector<int> widths(asked.candidate_bits().begin(), asked.candidate_bits().end());
  std::vector<BlockSource> variants;
  for (const int bits : widths) {
    variants.push_back(started_blocks(state, at_width(state.spec, bits)));
  }
  const absl::StatusOr<std::vector<LossSensitivities>> rises =
      loss_sensitivities(inputs, variants, {});
  if (!rises.ok()) return rises.status();
  std::vector<BitChoices> choices;
  for (const Projection2d& projection : decoder_projections(state.config())) {
    if (!on_base_grid(state.spec, projection.name)) continue;
    const int64_t group = grid_for(state.spec, projection.name, projection.input_size).group_size;
    BitChoices& choice = choices.emplace_back();
    choice.projection = projection.name;
    choice.weights = projection.output_size * projection.input_size;
    for (size_t i = 0; i < widths.size(); ++i) {
      choice.candidates.push_back({.bits = widths[i],
                                   .size = stored_bits(projection, group, widths[i]),
                                   .loss_rise = (*rises)[i].at(projection.name)});
    }
  }
  absl::StatusOr<v1::AutomaticDecision> decision = choose_bits(choices, asked.average_bits());
  if (!decision.ok()) return decision.status();
  // First in the list: an override of the caller's that only names an initializer comes after.
  google::protobuf::RepeatedPtrField<v1::ProjectionOverride> overrides;
  for (const BitChoices& choice : choices) {
    v1::ProjectionOverride& exception = *overrides.Add();
    exception.set_pattern(choice.projection);
    exception.set_initializer(initializer_for(state.spec, choice.projection));
    *exception.mutable_weights() = state.spec.weights();
    exception.mutable_weights()->set_bits(decision->bits().at(choice.projection));
  }
  overrides.MergeFrom(state.spec.overrides());
  *state.spec.mutable_overrides() = std::move(overrides);
  *state.report.mutable_automatic() = *std::move(decision);
  return absl::OkStatus();
}

}  // namespace

absl::Status measure_signals(JobState& state) {
  const bool widths = state.spec.automatic().has_average_bits();
  const bool freezing = state.spec.automatic().has_freeze_share();
  if (!widths && !freezing && !state.spec.signal_report()) return absl::OkStatus();
  state.reporter.start_phase(v1::PHASE_PREPARING);
  const torch::Tensor ids = signal_ids(state);
  const RopeTable rope = make_rope_table(state.config(), ids.size(1));
  const SignalInputs inputs = signal_inputs(state, ids, rope);
  if (widths) {
    if (const absl::Status status = choose_widths(state, inputs); !status.ok()) return status;
  }
  absl::StatusOr<v1::SignalReport> report =
      signal_report(inputs, started_blocks(state, state.spec), {});
  if (!report.ok()) return report.status();
  if (freezing) {
    const v1::AutomaticDecision frozen =
        choose_frozen(*report, state.spec.automatic().freeze_share(), weight_counts(state));
    *state.report.mutable_automatic()->mutable_frozen() = frozen.frozen();
    for (const std::string& name : frozen.frozen()) {
      state.spec.mutable_distillation()->add_freeze(name);
    }
  }
  *state.report.mutable_signals() = *std::move(report);
  if (state.report.has_automatic()) {
    v1::EngineEvent event;
    *event.mutable_automatic_decision() = state.report.automatic();
    state.reporter.send(event);
  }
  return absl::OkStatus();
}

absl::Status finish_signals(JobState& state) {
  if (!state.report.has_signals()) return absl::OkStatus();
  state.reporter.start_phase(v1::PHASE_EVALUATING);
  const torch::Tensor ids = signal_ids(state);
  const RopeTable rope = make_rope_table(state.config(), ids.size(1));
  const BlockSource trained = [&](int64_t index) -> absl::StatusOr<DecoderBlock> {
    const absl::StatusOr<QuantizedBlock> block = state.blocks.get(index);
    if (!block.ok()) return block.status();
    return packed_block(state, index, *block);
  };
  v1::SignalReport& report = *state.report.mutable_signals();
  const absl::Status status =
      add_trained_gradients(signal_inputs(state, ids, rope), state.ends, trained, report);
  if (!status.ok()) return status;
  const auto& frozen = state.spec.distillation().freeze();
  for (v1::ProjectionSignal& signal : *report.mutable_projections()) {
    signal.set_frozen(std::any_of(frozen.begin(), frozen.end(), [&](const std::string& pattern) {
      return pattern_matches(pattern, signal.projection());
    }));
  }
  v1::EngineEvent event;
  *event.mutable_signal_report() = report;
  state.reporter.send(event);
  return absl::OkStatus();
}

}  // namespace qaas::stages
