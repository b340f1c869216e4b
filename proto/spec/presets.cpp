#include "proto/spec/presets.h"

namespace qaas {
namespace {

/// AdamW as every paper at hand leaves it (arXiv 2407.11062, 2305.17888, 2402.10631): PyTorch's
/// constants, no weight decay, because decay pulls weights off the grid they are trained for.
template <typename Options>
void set_adam(Options& options) {
  options.set_adam_beta1(0.9);
  options.set_adam_beta2(0.999);
  options.set_adam_epsilon(1e-8);
  options.set_weight_decay(0);
}

/// No held-out windows: all of a small calibration set trains, as in the paper's recipe.
template <typename Options>
void set_no_validation(Options& options) {
  options.set_validation_samples(0);
  options.set_early_stop_patience(0);
}

/// arXiv 2407.11062, section 4.1: a 2-bit grid needs the larger rate to leave its start.
double paper_rate(int bits) { return bits == 2 ? 2e-5 : 1e-5; }

v1::BlockApOptions paper_block_ap(int bits) {
  v1::BlockApOptions options;
  options.set_epochs(2);                  // arXiv 2407.11062, section 4.1
  options.set_batch_size(2);              // the same
  options.set_quant_learning_rate(1e-4);  // the same, for every width
  options.set_weight_learning_rate(paper_rate(bits));
  options.set_final_learning_rate_ratio(0.05);  // its code: cosine to a twentieth
  options.set_gradient_clip_norm(0);            // its code parses a norm and never applies it
  options.set_shuffle(false);                   // its code: one order for all epochs
  options.set_trainable(v1::BLOCK_AP_TRAINABLE_SCALE_ZERO_WEIGHT);  // best of its ablation
  options.set_learning_rate_unit(v1::LEARNING_RATE_UNIT_ABSOLUTE);
  set_adam(options);
  set_no_validation(options);
  return options;
}

// The constants of `accuracy` were chosen on text of the calibration source that trains nothing, by
// KL to the original (stories15M, 2 bits, groups of 32; one seed): tests/bench/RESULTS.md has the
// runs. The figures below are from there; differences under about 0.005 nats decide nothing.
v1::BlockApOptions accuracy_block_ap() {
  v1::BlockApOptions options = paper_block_ap(2);
  // Fine-tuning codes takes weights that can cross to the next code within an epoch. A step of
  // AdamW moves a parameter by about its rate, so a rate in steps of the grid says how many
  // optimizer steps a crossing takes, whatever the model and width: 67 at this one. 0.02 ends as
  // near (KL after blocks 0.547 for 0.548); 0.03 is worse (0.573), and so are batches of 4 (0.592).
  options.set_learning_rate_unit(v1::LEARNING_RATE_UNIT_STEP_SIZE);
  options.set_quant_learning_rate(0.015);
  options.set_weight_learning_rate(0.015);
  // In codes: a zero point has few values to choose from and must be able to reach the next one.
  options.set_zero_point_learning_rate(5e-3);
  // Norms have no grid, and values near one.
  options.set_norm_learning_rate(5e-4);
  options.set_shuffle(true);  // an order seen twice is learned as an order
  return options;
}

v1::BlockApOptions fast_block_ap() {
  v1::BlockApOptions options = accuracy_block_ap();
  options.set_epochs(1);  // most of the gain is in the first pass
  return options;
}

v1::EndToEndOptions paper_e2e_qp(int bits) {
  v1::EndToEndOptions options;
  options.set_epochs(1);       // arXiv 2407.11062, section 4.1
  options.set_batch_size(32);  // the same
  options.set_learning_rate(paper_rate(bits));
  options.set_zero_point_learning_rate(0);  // the paper's choice: scales alone
  options.set_norm_learning_rate(0);
  options.set_weight_learning_rate(0);
  options.set_schedule(v1::LEARNING_RATE_SCHEDULE_COSINE);  // its code: 3 % warmup, cosine to zero
  options.set_warmup_ratio(0.03);
  options.set_gradient_clip_norm(0.3);  // its code
  options.set_shuffle(false);
  options.mutable_objective()->set_kind(v1::OBJECTIVE_KIND_CROSS_ENTROPY);
  options.set_learning_rate_unit(v1::LEARNING_RATE_UNIT_ABSOLUTE);
  // Lost work after a crash stays below a few minutes, at little writing: the state is scales only.
  options.set_checkpoint_steps(64);
  set_adam(options);
  set_no_validation(options);
  return options;
}

v1::EndToEndOptions accuracy_e2e_qp() {
  v1::EndToEndOptions options = paper_e2e_qp(2);
  // Cross-entropy on a small text adapts the model to that text; the original's distribution holds
  // far more per token, and does not.
  options.mutable_objective()->set_kind(v1::OBJECTIVE_KIND_FORWARD_KL);
  // Few windows ask for small batches, but the noise of smaller ones at larger rates costs more
  // than their steps gain. Scales at 0.02 end at KL 0.544, 0.517 and (start weighed) 0.483 with
  // batches of 1, 2 and 4; at 0.01 and 4 at 0.467.
  options.set_batch_size(4);
  options.set_learning_rate_unit(v1::LEARNING_RATE_UNIT_STEP_SIZE);
  options.set_learning_rate(0.01);
  // As in block training. Without them the same to 0.0001 nats, measured with batches of 2 at 0.02.
  options.set_zero_point_learning_rate(5e-3);
  options.set_norm_learning_rate(5e-4);
  // The rates of weights stay 0: at 0.002 they undo part of block training (KL 0.650 for 0.517).
  options.set_warmup_ratio(0);        // AdamW's first steps are bounded by their rate
  options.set_gradient_clip_norm(0);  // and their size does not depend on the gradient's
  options.set_shuffle(true);
  return options;
}

v1::EndToEndOptions fast_e2e_qp() {
  v1::EndToEndOptions options = accuracy_e2e_qp();
  options.set_epochs(0);  // needs a teacher's pass and costs as much as two epochs of blocks
  return options;
}

}  // namespace

v1::Initialisation initialisation_preset(v1::Method method, v1::Preset preset) {
  v1::Initialisation start;
  start.set_initializer(v1::INITIALIZER_MIN_MAX);
  if (method == v1::METHOD_DISTILLATION_QAT) {
    // Frozen projections keep their start for good, so it has to be a good one.
    start.set_initializer(v1::INITIALIZER_CLIP_SEARCH);
  }
  const bool searches = method == v1::METHOD_EFFICIENT_QAT &&
                        (preset == v1::PRESET_ACCURACY || preset == v1::PRESET_FAST);
  // Block training finds codes itself: from GPTQ's, at a rate of 0.01, it ends at KL 0.593, from
  // rounded ones, at 0.02, at 0.547.
  if (searches) start.set_initializer(v1::INITIALIZER_CLIP_SEARCH);
  if (method == v1::METHOD_GPTQ) start.set_initializer(v1::INITIALIZER_GPTQ);
  // GPTQ cannot move scales: searched ones leave it less to compensate at 2 and 3 bits.
  start.set_gptq_qparams(v1::INITIALIZER_CLIP_SEARCH);
  start.set_gptq_damping(0.01);            // arXiv 2210.17323, section 3.3
  start.set_gptq_activation_order(false);  // runtimes are slower with it
  start.set_activation_aware(searches);    // KL after blocks 0.547 for 0.553
  start.set_rotate(false);
  return start;
}

v1::BlockApOptions block_ap_preset(v1::Preset preset, int bits) {
  switch (preset) {
    case v1::PRESET_ACCURACY:
      return accuracy_block_ap();
    case v1::PRESET_FAST:
      return fast_block_ap();
    default:
      return paper_block_ap(bits);
  }
}

v1::EndToEndOptions e2e_qp_preset(v1::Preset preset, int bits) {
  switch (preset) {
    case v1::PRESET_ACCURACY:
      return accuracy_e2e_qp();
    case v1::PRESET_FAST:
      return fast_e2e_qp();
    default:
      return paper_e2e_qp(bits);
  }
}

v1::EndToEndOptions distillation_preset() {
  v1::EndToEndOptions options = paper_e2e_qp(4);
  // The original's distribution alone, as it is (arXiv 2305.17888, 2601.20088: no cross-entropy,
  // temperature 1).
  options.mutable_objective()->set_kind(v1::OBJECTIVE_KIND_FORWARD_KL);
  options.set_batch_size(8);  // the size published recipes share (LLM-QAT, AIMET)
  // Weights near a grid move little: published rates of 1e-6 to 2e-5 are 1e-4 to 2e-3 steps of a
  // 4-bit grid with one scale a row (a step of about 0.01 in Llama models).
  options.set_learning_rate_unit(v1::LEARNING_RATE_UNIT_STEP_SIZE);
  options.set_weight_learning_rate(1e-3);
  options.set_learning_rate(1e-3);
  options.set_gradient_clip_norm(1);  // per-token mean loss; AIMET and QuEST clip at 0.5 and 1
  options.set_shuffle(true);
  return options;
}

v1::Objective objective_preset(v1::ObjectiveKind kind) {
  v1::Objective objective;
  objective.set_kind(kind);
  if (kind == v1::OBJECTIVE_KIND_CROSS_ENTROPY) return objective;
  objective.set_temperature(1);                                     // arXiv 2305.17888, 2601.20088
  objective.set_cross_entropy_weight(0);                            // the same
  if (kind == v1::OBJECTIVE_KIND_JSD) objective.set_jsd_beta(0.5);  // the symmetric divergence
  if (kind == v1::OBJECTIVE_KIND_TSLD) objective.set_tsld_tau(10);  // arXiv 2308.06744
  return objective;
}

}  // namespace qaas
