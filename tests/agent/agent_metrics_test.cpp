#include "workers/agent/agent_metrics.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

namespace qaas {
namespace {

using ::testing::HasSubstr;

std::string page(const prometheus::Registry& registry) {
  return prometheus::TextSerializer().Serialize(registry.Collect());
}

// What dashboards and alerts rely on. A name is never changed, only added.
TEST(AgentMetrics, NamesAndLabelsStayAsTheyAre) {
  const auto registry = std::make_shared<prometheus::Registry>();
  AgentMetrics metrics(registry);
  metrics.attempt_ended(v1::METHOD_EFFICIENT_QAT, AttemptOutcome::kSucceeded,
                        std::chrono::seconds(7));
  std::set<std::string> found;
  for (const auto& family : registry->Collect()) {
    for (const auto& metric : family.metric) {
      std::string series = family.name;
      for (const auto& label : metric.label) {
        series += " " + label.name + "=" + label.value;
      }
      found.insert(series);
    }
  }
  EXPECT_EQ(found, (std::set<std::string>{
                       "qaas_worker_claims_total",
                       "qaas_worker_engine_endings_total class=caller",
                       "qaas_worker_engine_endings_total class=infrastructure",
                       "qaas_worker_engine_endings_total class=internal",
                       "qaas_worker_engine_endings_total class=resource",
                       "qaas_worker_engine_endings_total class=stopped",
                       "qaas_worker_engine_endings_total class=succeeded",
                       "qaas_worker_events_dropped_total",
                       "qaas_worker_job_duration_seconds method=efficient_qat outcome=succeeded",
                       "qaas_worker_job_progress_ratio",
                       "qaas_worker_lease_losses_total",
                       "qaas_worker_lease_renewal_failures_total",
                       "qaas_worker_phase phase=baseline",
                       "qaas_worker_phase phase=block_training",
                       "qaas_worker_phase phase=end_to_end_training",
                       "qaas_worker_phase phase=evaluating",
                       "qaas_worker_phase phase=exporting",
                       "qaas_worker_phase phase=idle",
                       "qaas_worker_phase phase=loading",
                       "qaas_worker_phase phase=preparing",
                       "qaas_worker_phase phase=publishing",
                       "qaas_worker_phase phase=working",
                       "qaas_worker_rescues_total",
                       "qaas_worker_seconds_since_last_step",
                       "qaas_worker_tokens_per_second",
                       "qaas_worker_training_loss",
                   }));
}

TEST(AgentMetrics, ExactlyOnePhaseIsOn) {
  const auto registry = std::make_shared<prometheus::Registry>();
  AgentMetrics metrics(registry);
  EXPECT_THAT(page(*registry), HasSubstr("qaas_worker_phase{phase=\"idle\"} 1\n"));
  metrics.claimed();
  metrics.phase(v1::PHASE_EVALUATING);
  EXPECT_THAT(page(*registry), HasSubstr("qaas_worker_phase{phase=\"evaluating\"} 1\n"));
  for (const char* off : {"idle", "loading"}) {
    EXPECT_THAT(page(*registry),
                HasSubstr(std::string("qaas_worker_phase{phase=\"") + off + "\"} 0\n"));
  }
  metrics.phase(static_cast<v1::Phase>(99));  // of a newer engine
  EXPECT_THAT(page(*registry), HasSubstr("qaas_worker_phase{phase=\"working\"} 1\n"));
}

TEST(AgentMetrics, AnIdleWorkerShowsNothingOfTheLastJob) {
  const auto registry = std::make_shared<prometheus::Registry>();
  AgentMetrics metrics(registry);
  v1::Progress progress;
  progress.set_phase(v1::PHASE_BLOCK_TRAINING);
  progress.set_fraction(0.5);
  progress.set_loss(0.25);
  progress.set_tokens_per_second(1000);
  metrics.progress(progress);
  EXPECT_THAT(page(*registry), HasSubstr("qaas_worker_job_progress_ratio 0.5\n"));
  EXPECT_THAT(page(*registry), HasSubstr("qaas_worker_training_loss 0.25\n"));
  EXPECT_THAT(page(*registry), HasSubstr("qaas_worker_tokens_per_second 1000\n"));
  metrics.attempt_ended(v1::METHOD_ROUND_TO_NEAREST, AttemptOutcome::kReleased,
                        std::chrono::seconds(1));
  metrics.tick();
  for (const char* name :
       {"qaas_worker_job_progress_ratio", "qaas_worker_training_loss",
        "qaas_worker_tokens_per_second", "qaas_worker_seconds_since_last_step"}) {
    EXPECT_THAT(page(*registry), HasSubstr(std::string(name) + " 0\n"));
  }
}

}  // namespace
}  // namespace qaas
