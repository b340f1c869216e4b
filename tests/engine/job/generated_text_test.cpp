#include "workers/engine/job/generated_text.h"

#include "tests/engine/job/job_fixture.h"

namespace qaas {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

class GeneratedText : public testing::JobTest {
 protected:
  static v1::JobSpec spec() {
    v1::JobSpec spec = testing::tiny_spec();
    spec.mutable_calibration()->clear_dataset();
    spec.mutable_calibration()->mutable_generated();
    return spec;
  }
};

TEST_F(GeneratedText, AJobTrainsOnItWithoutADataset) {
  testing::RunLog log;
  v1::Job job;
  *job.mutable_spec() = spec();
  RunFolders where = folders("a");
  where.calibration.clear();
  ASSERT_THAT(run_job(job, where, [&](const v1::EngineEvent& e) { log.add(e); }, {}), IsOk());
  EXPECT_LT(log.evaluation.quantized().kl_divergence(),
            log.evaluation.round_to_nearest().kl_divergence());
  EXPECT_FALSE(log.evaluation.same_source());
}

TEST_F(GeneratedText, OneSeedGivesOneArtifact) {
  ASSERT_THAT(run(spec(), "a"), IsOk());
  ASSERT_THAT(run(spec(), "b"), IsOk());
  EXPECT_TRUE(weights("a") == weights("b"));
}

TEST_F(GeneratedText, WindowsHaveTheSizesAskedForAndTheModelsVocabulary) {
  v1::DataSelection selection;
  selection.set_samples(5);
  selection.set_sequence_length(16);
  selection.mutable_generated()->set_greedy_tokens(2);
  selection.mutable_generated()->set_temperature(0.7);
  QAAS_ASSERT_OK_AND_ASSIGN(const torch::Tensor ids, generated_windows(model_, selection, 3, {}));
  EXPECT_EQ(ids.sizes(), (std::vector<int64_t>{5, 16}));
  EXPECT_GE(ids.min().item<int64_t>(), 0);
  EXPECT_LT(ids.max().item<int64_t>(), model_.config().vocab_size);
}

TEST_F(GeneratedText, AModelThatDoesNotFitIsRefusedWithTheNumbers) {
  const GenerationOptions options{.sequences = 8, .length = 16};
  const int64_t needed = generation_bytes(model_.config(), options);
  EXPECT_THAT(check_generation_memory(model_.config(), options, needed), IsOk());
  EXPECT_THAT(check_generation_memory(model_.config(), options, needed - 1),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("calibration.generated"), HasSubstr("8 sequences of 16"),
                             HasSubstr("GB are free"))));
}

}  // namespace
}  // namespace qaas
