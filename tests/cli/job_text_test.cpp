#include "clients/cli/job_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qaas::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

void set_score(v1::ModelScore& score, double loss, double perplexity, double divergence) {
  score.set_loss(loss);
  score.set_perplexity(perplexity);
  score.set_kl_divergence(divergence);
}

v1::Job finished_job() {
  v1::Job job;
  job.set_name("jobs/7f3c");
  job.set_state(v1::JOB_STATE_SUCCEEDED);
  job.set_attempt(1);
  job.mutable_spec()->set_model("models/small");
  job.mutable_spec()->set_method(v1::METHOD_EFFICIENT_QAT);
  job.mutable_spec()->mutable_weights()->set_bits(2);
  job.mutable_spec()->mutable_weights()->set_group_size(64);
  job.mutable_spec()->mutable_calibration()->set_dataset("datasets/text");
  job.mutable_spec()->mutable_evaluation()->set_dataset("datasets/held-out");
  job.mutable_create_time()->set_seconds(1000);
  job.mutable_start_time()->set_seconds(1003);
  job.mutable_end_time()->set_seconds(1136);

  v1::Prediction* quantized = job.mutable_forecast()->mutable_quantized();
  quantized->set_error(0.021);
  quantized->set_source("chen2025 W4A16");
  quantized->set_relative_error(0.052);
  quantized->set_extrapolated(true);
  quantized->add_notes("fine-tuning, not from scratch");
  v1::PredictionInput* parameters = quantized->add_inputs();
  parameters->set_symbol("N");
  parameters->set_value(3.1e6);
  parameters->set_fitted_min(74e6);
  parameters->set_fitted_max(595e6);
  v1::Prediction* nearest = job.mutable_forecast()->mutable_round_to_nearest();
  nearest->set_source("ouyang2024");
  nearest->add_notes("no prediction: the law covers 2 to 4 bits, found 8");

  v1::Evaluation& evaluation = *job.mutable_evaluation();
  evaluation.set_dataset("datasets/held-out");
  evaluation.set_windows(64);
  evaluation.set_sequence_length(256);
  set_score(*evaluation.mutable_original(), 0.93, 2.5345, 0);
  set_score(*evaluation.mutable_round_to_nearest(), 4.7485, 115.41, 3.9);
  set_score(*evaluation.mutable_quantized(), 2.3279, 10.256, 1.41);
  evaluation.set_measured_error(1.3979);
  evaluation.set_original_bytes(7'600'000);
  evaluation.set_artifact_bytes(2'100'000);
  v1::StageScore* stage = evaluation.add_stages();
  stage->set_stage("block_ap");
  set_score(*stage->mutable_score(), 2.4817, 11.962, 0);
  stage->set_seconds(75);
  stage->set_tokens_per_second(5625);
  return job;
}

TEST(ResultText, ShowsTextsTasksAndHowSureTheFiguresAre) {
  v1::Job job = finished_job();
  v1::Evaluation& evaluation = *job.mutable_evaluation();
  evaluation.mutable_quantized()->set_loss_difference_stderr(0.0123);
  evaluation.mutable_quantized()->set_top1_agreement(0.875);
  v1::TextScore* text = evaluation.add_texts();
  text->set_dataset("datasets/web");
  set_score(*text->mutable_original(), 3, 20.5, 0);
  set_score(*text->mutable_quantized(), 3.5, 33.25, 0.75);
  v1::TaskScore* task = evaluation.add_tasks();
  task->set_task("arc_easy");
  task->mutable_original()->set_acc(0.5);
  task->mutable_original()->set_acc_stderr(0.025);
  task->mutable_quantized()->set_acc_norm(0.25);
  const std::string shown = result_text(job);
  EXPECT_THAT(shown, AllOf(HasSubstr("its standard error"), HasSubstr("0.0123"),
                           HasSubstr("top-1 agreement"), HasSubstr("0.875")));
  EXPECT_THAT(shown, AllOf(HasSubstr("perplexity, datasets/web"), HasSubstr("33.25"),
                           HasSubstr("KL, datasets/web"), HasSubstr("0.75")));
  EXPECT_THAT(shown, AllOf(HasSubstr("arc_easy acc (standard error)"), HasSubstr("0.5 (0.025)"),
                           HasSubstr("arc_easy acc_norm"), HasSubstr("0.25 (0)")));
}

TEST(EventLine, TellsCurvesSignalsAndChoicesInOneLine) {
  v1::JobEvent event;
  v1::TrainingCurve* curve = event.mutable_training_curve();
  curve->set_stage("e2e_qp");
  curve->add_losses(2.5);
  curve->add_losses(1.5);
  curve->set_seconds(80);
  curve->set_tokens_per_second(415);
  EXPECT_EQ(event_line(event), "e2e_qp done: loss 2.5 -> 1.5, 1m 20s, 415 tokens/s");
  curve->set_block(0);  // BlockFinished has told
  EXPECT_EQ(event_line(event), "");

  for (const double rise : {0.1, 0.3, 0.2}) {
    v1::ProjectionSignal* signal = event.mutable_signal_report()->add_projections();
    signal->set_projection(rise == 0.3 ? "model.layers.1.mlp.down_proj" : "other");
    signal->set_loss_sensitivity(rise);
  }
  EXPECT_EQ(event_line(event),
            "signals of 3 projections measured; most sensitive: model.layers.1.mlp.down_proj, "
            "+0.3 nats alone");

  v1::AutomaticDecision* decision = event.mutable_automatic_decision();
  decision->add_frozen("a");
  EXPECT_EQ(event_line(event), "chosen by measurement: 1 projections frozen");
  (*decision->mutable_bits())["a"] = 2;
  decision->set_average_bits(3.25);
  decision->set_predicted_loss_rise(0.5);
  decision->set_uniform_loss_rise(0.75);
  EXPECT_EQ(event_line(event),
            "chosen by measurement: 3.25 bits a weight, expected rise 0.5 nats (one width for all: "
            "0.75), 1 projections frozen");
}

TEST(ResultText, PutsPredictionBesideMeasurement) {
  EXPECT_EQ(result_text(finished_job()),
            "                            original  round-to-nearest  quantized\n"
            "perplexity                    2.5345            115.41     10.256\n"
            "KL from the original, nats                         3.9       1.41\n"
            "measured error, nats                            +3.818     +1.398\n"
            "predicted error, nats                             none     +0.021\n"
            "weight file                   7.6 MB                       2.1 MB\n"
            "after block_ap: perplexity 11.962, 1m 15s, 5.6k tokens/s\n"
            "measured on datasets/held-out: 64 windows of 256 tokens; error is mean loss minus the "
            "original's\n"
            "predicted by chen2025 W4A16, published error 5.2 %, outside its fit (N 3.1M, fitted "
            "74.0M to 595.0M); round-to-nearest by ouyang2024, inside its fit\n");
}

TEST(ResultText, SaysWhenBothTextsComeFromOneSource) {
  v1::Job job = finished_job();
  EXPECT_THAT(result_text(job), Not(HasSubstr("one source")));
  job.mutable_evaluation()->set_same_source(true);
  EXPECT_THAT(result_text(job), HasSubstr("calibration and evaluation text come from one source"));
}

TEST(JobText, ShowsWhatTheJobIsAndHowLongItTook) {
  EXPECT_THAT(job_text(finished_job()),
              AllOf(HasSubstr("job          jobs/7f3c\n"), HasSubstr("state        succeeded\n"),
                    HasSubstr("EfficientQAT, 2 bits, groups of 64, asymmetric\n"),
                    HasSubstr("2m 13s running, 3.0 s queued\n"), HasSubstr("115.41")));
}

TEST(JobText, ShowsTheForecastUntilThereIsAMeasurement) {
  v1::Job job = finished_job();
  job.clear_evaluation();
  job.set_state(v1::JOB_STATE_QUEUED);
  EXPECT_THAT(
      job_text(job),
      AllOf(HasSubstr("quantized         +0.021"), HasSubstr("- fine-tuning, not from scratch\n"),
            HasSubstr("round-to-nearest  none"), HasSubstr("- no prediction: the law covers")));
}

TEST(JobText, ShowsWhyAJobFailedWithoutTrustingTheText) {
  v1::Job job = finished_job();
  job.clear_evaluation();
  job.clear_forecast();
  job.set_state(v1::JOB_STATE_FAILED);
  job.mutable_failure()->set_code("INVALID_ARGUMENT");
  job.mutable_failure()->set_message("tensor 'x\x1b]0;owned\x07' is short");
  job.mutable_failure()->set_position("block 3 step 17");
  EXPECT_THAT(job_text(job),
              HasSubstr("failure      INVALID_ARGUMENT: tensor 'x\\x1b]0;owned\\x07' is short (at "
                        "block 3 step 17)\n"));
}

TEST(JobText, AValidatedJobHasNoName) {
  v1::Job job = finished_job();
  job.clear_name();
  EXPECT_THAT(job_text(job), HasSubstr("(not created: validated only)"));
}

TEST(JobListText, IsOneLineAJob) {
  v1::Job running = finished_job();
  running.set_state(v1::JOB_STATE_RUNNING);
  running.mutable_progress()->set_fraction(0.42);
  running.mutable_progress()->set_remaining_seconds(80);
  EXPECT_EQ(job_list_text({running}, 1120),
            "JOB   STATE    METHOD        GRID                              MODEL  AGE     "
            "PROGRESS\n"
            "7f3c  running  EfficientQAT  2 bits, groups of 64, asymmetric  small  2m 00s  42 %, "
            "1m 20s left\n");
  EXPECT_EQ(job_list_text({}, 0), "no jobs\n");
}

TEST(ProgressLine, ShowsRateLossAndTimeLeft) {
  v1::Progress progress;
  progress.set_phase(v1::PHASE_BLOCK_TRAINING);
  progress.set_block(2);
  progress.set_block_count(6);
  progress.set_step(120);
  progress.set_step_count(256);
  progress.set_loss(0.01234);
  progress.set_tokens_per_second(1234);
  progress.set_fraction(0.42);
  progress.set_remaining_seconds(80);
  EXPECT_EQ(progress_line(progress, 10),
            "training blocks: [####------] 42 %, block 3/6, step 120/256, loss 0.01234, 1.2k "
            "tokens/s, 1m 20s left");
  EXPECT_THAT(progress_line(progress, 0), Not(HasSubstr("[")));
}

TEST(ProgressLine, LeavesOutWhatIsUnknown) {
  v1::Progress progress;
  progress.set_phase(static_cast<v1::Phase>(99));
  EXPECT_EQ(progress_line(progress, 0), "working: 0 %");
}

TEST(EventLine, DescribesEveryKindOfEvent) {
  v1::JobEvent event;
  event.set_attempt(2);
  event.mutable_state_changed()->set_state(v1::JOB_STATE_QUEUED);
  event.mutable_state_changed()->set_reason("lease expired");
  event.mutable_state_changed()->mutable_failure()->set_code("UNAVAILABLE");
  event.mutable_state_changed()->mutable_failure()->set_message("worker lost");
  EXPECT_EQ(event_line(event), "queued: lease expired (attempt 2); UNAVAILABLE: worker lost");

  event.mutable_block_finished()->set_block(2);
  event.mutable_block_finished()->set_block_count(6);
  event.mutable_block_finished()->set_initial_loss(0.5);
  event.mutable_block_finished()->set_final_loss(0.25);
  event.mutable_block_finished()->set_seconds(12);
  event.mutable_block_finished()->set_tokens_per_second(5625);
  EXPECT_EQ(event_line(event), "block 3/6 done: loss 0.5 -> 0.25, 12 s, 5.6k tokens/s");

  event.mutable_phase_started()->set_phase(v1::PHASE_BASELINE);
  EXPECT_EQ(event_line(event), "scoring baselines");
  event.mutable_checkpoint_written()->set_description("block 3 of 6");
  EXPECT_EQ(event_line(event), "checkpoint written: block 3 of 6");
  event.mutable_warning()->set_message("a\nb");
  EXPECT_EQ(event_line(event), "warning: a\\x0ab");
  *event.mutable_evaluation() = finished_job().evaluation();
  EXPECT_EQ(event_line(event), "evaluated: perplexity 2.5345 -> 10.256");
  EXPECT_EQ(event_line(v1::JobEvent()), "") << "a kind this program does not know";
}

}  // namespace
}  // namespace qaas::cli
