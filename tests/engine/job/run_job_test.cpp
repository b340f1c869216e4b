#include "workers/engine/job/run_job.h"

#include <nlohmann/json.hpp>

#include "storage/checkpoint/digest.h"
#include "tests/engine/job/job_fixture.h"
#include "workers/engine/exporters/artifact_reader.h"
#include "workers/engine/job/evaluate_folder.h"

namespace qaas {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using ::testing::IsSupersetOf;
using testing::read_file;
using testing::RunLog;
using testing::StatusIs;
using testing::tiny_rounding_spec;
using testing::tiny_spec;

class RunJob : public testing::JobTest {
 protected:
  nlohmann::json manifest(const std::string& name) const {
    return nlohmann::json::parse(read_file(folders(name).out / "manifest.json"));
  }
  FolderScore score(const std::filesystem::path& folder) const {
    const auto score = evaluate_folder({.model = folder,
                                        .texts = {folder_ / "evaluation"},
                                        .original = folder_ / "model",
                                        .sequence_length = 20,
                                        .samples = 6},
                                       {});
    EXPECT_THAT(score, IsOk());
    return score.value_or(FolderScore());
  }
};

TEST_F(RunJob, TheWholeRecipeTellsItsStepsAndLeavesAnArtifact) {
  RunLog log;
  ASSERT_THAT(run(tiny_spec(), "a", &log), IsOk());
  EXPECT_THAT(log.phases, ElementsAre(v1::PHASE_LOADING, v1::PHASE_BASELINE,
                                      v1::PHASE_BLOCK_TRAINING, v1::PHASE_END_TO_END_TRAINING,
                                      v1::PHASE_EXPORTING, v1::PHASE_EVALUATING));
  EXPECT_THAT(log.trained_blocks, ElementsAre(0, 1, 2));
  EXPECT_THAT(log.checkpoints,
              ElementsAre("block-0000.safetensors", "block-0001.safetensors",
                          "block-0002.safetensors", "end-to-end-0000.safetensors",
                          "end-to-end-0001.safetensors", "end-to-end-0002.safetensors"));
  EXPECT_THAT(log.warnings, IsEmpty());
  EXPECT_THAT(log.files, IsSupersetOf({"config.json", "manifest.json", "model.safetensors",
                                       "quantize_config.json"}));
  for (const std::string& file : log.files) {
    EXPECT_TRUE(std::filesystem::exists(folders("a").out / file)) << file;
  }
  const auto reader = ArtifactReader::open(folders("a").out);
  ASSERT_THAT(reader, IsOk());
  EXPECT_THAT(reader->verify_digests(), IsOk());
}

TEST_F(RunJob, TrainingBeatsRoundToNearest) {
  RunLog log;
  v1::JobSpec spec = tiny_spec();
  spec.mutable_block_ap()->set_epochs(4);
  ASSERT_THAT(run(spec, "a", &log), IsOk());
  const v1::Evaluation& evaluation = log.evaluation;
  EXPECT_LT(evaluation.quantized().kl_divergence(), evaluation.round_to_nearest().kl_divergence());
  EXPECT_EQ(evaluation.original().kl_divergence(), 0);
  EXPECT_EQ(evaluation.windows(), 6);
  EXPECT_EQ(evaluation.scored_tokens(), 6 * 19);
  EXPECT_FALSE(evaluation.same_source());
  EXPECT_DOUBLE_EQ(evaluation.measured_error(),
                   evaluation.quantized().loss() - evaluation.original().loss());
  ASSERT_EQ(evaluation.stages_size(), 2);
  EXPECT_EQ(evaluation.stages(0).stage(), "block_ap");
  EXPECT_EQ(evaluation.stages(1).stage(), "e2e_qp");
  EXPECT_EQ(evaluation.stages(1).score().loss(), evaluation.quantized().loss());
}

TEST_F(RunJob, TheManifestsEvaluationIsWhatScoringTheFolderGives) {
  ASSERT_THAT(run(tiny_spec(), "a"), IsOk());
  const nlohmann::json evaluation = manifest("a").at("evaluation");
  const auto expect_same = [&](const std::filesystem::path& folder, const char* model) {
    const nlohmann::json& told = evaluation.at(model);
    const FolderScore scored = score(folder);
    ASSERT_EQ(scored.texts.size(), 1u);
    EXPECT_EQ(scored.texts[0].model.loss, told.at("loss")) << model;
    EXPECT_EQ(scored.texts[0].model.perplexity, told.at("perplexity")) << model;
    EXPECT_EQ(scored.texts[0].model.kl_divergence, told.value("kl_divergence", 0.0)) << model;
    EXPECT_EQ(scored.texts[0].model.top1_agreement, told.at("top1_agreement")) << model;
  };
  expect_same(folders("a").out, "quantized");
  expect_same(folder_ / "model", "original");
}

TEST_F(RunJob, TheManifestNamesWhatTheJobSaw) {
  ASSERT_THAT(run(tiny_spec(), "a"), IsOk());
  const nlohmann::json told = manifest("a");
  EXPECT_EQ(told.at("model_digest"), sha256_folder(folder_ / "model", {}).value());
  EXPECT_EQ(told.at("dataset_digests").at("datasets/calibration"),
            sha256_folder(folder_ / "calibration", {}).value());
  EXPECT_EQ(told.at("spec").at("weights").at("symmetric"), false);  // defaults filled in
  EXPECT_TRUE(told.at("host").contains("threads"));
}

TEST_F(RunJob, OneSeedGivesOneArtifact) {
  ASSERT_THAT(run(tiny_spec(), "a"), IsOk());
  ASSERT_THAT(run(tiny_spec(), "b"), IsOk());
  EXPECT_TRUE(weights("a") == weights("b"));
  v1::JobSpec other = tiny_spec();
  other.set_seed(3);
  ASSERT_THAT(run(other, "c"), IsOk());
  EXPECT_FALSE(weights("a") == weights("c"));
}

TEST_F(RunJob, RoundToNearestNeedsNoCalibrationAndScoresFromDiskAsItDidInMemory) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const int group_size : {32, 64, -1}) {
      const std::string name = std::to_string(bits) + "_bits_g" + std::to_string(group_size);
      v1::Job job;
      *job.mutable_spec() = tiny_rounding_spec(bits, group_size);
      RunFolders where = folders(name);
      where.calibration.clear();
      RunLog log;
      ASSERT_THAT(run_job(job, where, [&](const v1::EngineEvent& e) { log.add(e); }, {}), IsOk());
      EXPECT_EQ(log.evaluation.quantized().loss(), log.evaluation.round_to_nearest().loss());
      EXPECT_EQ(log.evaluation.quantized().kl_divergence(),
                log.evaluation.round_to_nearest().kl_divergence());
      EXPECT_THAT(log.trained_blocks, IsEmpty());
      EXPECT_EQ(log.evaluation.stages_size(), 0);
    }
  }
}

TEST_F(RunJob, OverridesSurviveIntoTheArtifact) {
  v1::JobSpec spec = tiny_spec();
  auto* dense = spec.add_overrides();
  dense->set_pattern("model.layers.1.mlp.down_proj");
  dense->set_keep_full_precision(true);
  auto* finer = spec.add_overrides();
  finer->set_pattern("*.v_proj");
  finer->mutable_weights()->set_bits(8);
  finer->mutable_weights()->set_group_size(64);
  ASSERT_THAT(run(spec, "a"), IsOk());
  const auto reader = ArtifactReader::open(folders("a").out);
  ASSERT_THAT(reader, IsOk());
  for (const auto& [name, grid] : reader->grids()) {
    const bool is_v = name.ends_with(".v_proj");
    const bool is_dense = name == "model.layers.1.mlp.down_proj";
    EXPECT_EQ(grid.bits, is_dense ? 0 : is_v ? 8 : 2) << name;
    if (is_dense) continue;
    EXPECT_EQ(grid.group_size, is_v ? 64 : 32) << name;
    EXPECT_EQ(grid.symmetric, is_v) << name;
  }
  const TensorView& kept = reader->tensor("model.layers.1.mlp.down_proj.weight");
  const TensorView& source = model_.tensor("model.layers.1.mlp.down_proj.weight");
  EXPECT_EQ(kept.dtype, source.dtype);
  EXPECT_TRUE(std::ranges::equal(kept.bytes, source.bytes));
  EXPECT_EQ(score(folders("a").out).texts.at(0).windows, 6);
}

TEST_F(RunJob, EitherStageRunsAlone) {
  v1::JobSpec blocks_only = tiny_spec(), scales_only = tiny_spec();
  blocks_only.mutable_e2e_qp()->Clear();
  blocks_only.mutable_e2e_qp()->set_epochs(0);
  scales_only.mutable_block_ap()->Clear();
  scales_only.mutable_block_ap()->set_epochs(0);
  RunLog blocks, scales;
  ASSERT_THAT(run(blocks_only, "blocks", &blocks), IsOk());
  ASSERT_THAT(run(scales_only, "scales", &scales), IsOk());
  EXPECT_EQ(blocks.trained_blocks.size(), 3u);
  ASSERT_EQ(blocks.evaluation.stages_size(), 1);
  EXPECT_EQ(blocks.evaluation.stages(0).stage(), "block_ap");
  EXPECT_THAT(scales.trained_blocks, IsEmpty());
  ASSERT_EQ(scales.evaluation.stages_size(), 1);
  EXPECT_EQ(scales.evaluation.stages(0).stage(), "e2e_qp");
  EXPECT_LT(scales.evaluation.quantized().loss(), scales.evaluation.round_to_nearest().loss());
}

TEST_F(RunJob, MoreSamplesThanTheDatasetHoldsIsRefusedWithTheCount) {
  v1::JobSpec spec = tiny_spec();
  spec.mutable_calibration()->set_samples(21);
  EXPECT_THAT(run(spec, "a"), StatusIs(absl::StatusCode::kInvalidArgument,
                                       AllOf(HasSubstr("20"), HasSubstr("21"))));
}

TEST_F(RunJob, TwoDatasetsOfOneNameAreRefused) {
  v1::JobSpec spec = tiny_spec();
  spec.mutable_calibration()->set_dataset(spec.evaluation().dataset());
  EXPECT_THAT(run(spec, "a"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("not the first data that the spec calls 'datasets/evaluation'")));
}

TEST_F(RunJob, AnInvalidSpecIsRefusedByEachFieldsPath) {
  v1::JobSpec spec = tiny_spec();
  spec.mutable_weights()->set_bits(5);
  spec.mutable_block_ap()->set_batch_size(0);
  EXPECT_THAT(run(spec, "a"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("weights.bits"), HasSubstr("block_ap.batch_size"))));
}

TEST_F(RunJob, AGroupSizeThatDoesNotDivideAProjectionNamesIt) {
  v1::JobSpec spec = tiny_rounding_spec(4, 128);  // q_proj has 64 inputs
  EXPECT_THAT(run(spec, "a"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("weights.group_size"), HasSubstr("model.layers.0."))));
}

TEST_F(RunJob, AModelThatChangedSinceItWasSubmittedIsRefused) {
  v1::Job job;
  *job.mutable_spec() = tiny_spec();
  const EventSink ignore = [](const v1::EngineEvent&) {};
  job.set_model_digest(std::string(64, '0'));
  EXPECT_THAT(run_job(job, folders("a"), ignore, {}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("has changed")));
  job.set_model_digest(sha256_folder(folder_ / "model", {}).value());
  EXPECT_THAT(run_job(job, folders("a"), ignore, {}), IsOk());
}

TEST_F(RunJob, AWeightThatIsNotANumberIsTheCallersFault) {
  testing::write_tiny_llama(folder_ / "model", {}, [](const auto& name, auto& values) {
    if (name == "model.layers.0.mlp.gate_proj.weight") values[0] = std::nanf("");
  });
  EXPECT_THAT(run(tiny_spec(), "a"), StatusIs(absl::StatusCode::kInvalidArgument,
                                              HasSubstr("model.layers.0.mlp.gate_proj.weight")));
}

TEST_F(RunJob, AnEndOfTheModelThatIsNotANumberIsTheCallersFault) {
  testing::write_tiny_llama(folder_ / "model", {}, [](const auto& name, auto& values) {
    if (name == "model.norm.weight") values[0] = std::nanf("");
  });
  EXPECT_THAT(run(tiny_spec(), "a"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("final norm")));
}

TEST_F(RunJob, AModelFileThatChangesIsNoticedBeforeTheNextBlock) {
  v1::Job job;
  *job.mutable_spec() = tiny_spec();
  const std::filesystem::path weights = folder_ / "model" / "model.safetensors";
  RunLog log;
  const auto status = run_job(job, folders("a"),
                              [&](const v1::EngineEvent& event) {
                                log.add(event);
                                if (!event.has_checkpoint_written()) return;
                                std::filesystem::last_write_time(
                                    weights, std::filesystem::file_time_type::clock::now());
                              },
                              {});
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("changed")));
  EXPECT_THAT(log.trained_blocks, ElementsAre(0));
}

}  // namespace
}  // namespace qaas
