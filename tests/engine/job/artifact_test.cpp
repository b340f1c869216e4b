#include "workers/engine/job/artifact.h"

#include <tuple>

#include "tests/engine/job/job_fixture.h"
#include "tests/support/tensor_matchers.h"
#include "workers/engine/eval/language_model_score.h"
#include "workers/engine/job/job_inputs.h"
#include "workers/engine/job/job_state.h"
#include "workers/engine/job/stage_options.h"
#include "workers/engine/quant/quantized_ends.h"

namespace qaas {
namespace {

using testing::same_bits;

/// Whether the model's head is tied, bits of head and embedding, bits of activations.
using Parts = std::tuple<bool, int, int, int>;

class Artifact : public testing::JobTest, public ::testing::WithParamInterface<Parts> {
 protected:
  Artifact()
      : JobTest({.blocks = 2, .tied = std::get<0>(GetParam()), .dtype = Dtype::kF16}),
        folders_(folders("run")),
        inputs_{load_inputs(job(), folders_, {}).value()},
        state_(inputs_, folders_, sink_, {}, torch::kFloat32, {.fingerprint = "f", .host = "h"},
               FinishedBlocks::Keep::kOnDisk) {
    std::filesystem::create_directories(folders_.checkpoints);
    const ModelEnds source = load_ends(state_.config(), source_tensors(inputs_.model));
    state_.original_ends = source;
    state_.ends = quantize_ends(source, ends_quantization(state_.spec, state_.config()));
    for (int64_t i = 0; i < state_.block_count(); ++i) {
      DecoderBlock block = dense_block(inputs_.model, i).value();
      prepare_block(block, grids_of_block(state_.spec, i));
      apply_activation_quantization(block, activations_of_block(state_.spec, i));
      QuantizedBlock quantized = convert_block(block);
      for (auto& [name, quantizer] : quantized.activations) quantizer.clip = 0.9f;
      const auto status = state_.blocks.put(BlockCheckpoints::Stage::kBlockTraining, i,
                                            std::move(quantized), std::nullopt);
      TORCH_CHECK(status.ok(), status.ToString());
    }
  }
  static v1::Job job() {
    const auto& [tied, head, embedding, activations] = GetParam();
    v1::Job job;
    v1::JobSpec& spec = *job.mutable_spec();
    spec = testing::tiny_rounding_spec(4, 32);
    if (head != 0) spec.set_lm_head_bits(head);
    if (embedding != 0) spec.set_embedding_bits(embedding);
    if (activations != 0) spec.mutable_activations()->set_bits(activations);
    if (activations == 4) spec.mutable_activations()->set_down_proj_bits(8);
    return job;
  }
  ScoredModel score(const ModelConfig& config, const ModelEnds& ends, const BlockSource& source) {
    const torch::Tensor& text = inputs_.evaluation.texts.at(0);
    return score_model(ends, state_.block_count(), source, text,
                       make_rope_table(config, text.size(1)), state_.original_ends, nullptr,
                       [](double) {}, {})
        .value();
  }

  const RunFolders folders_;
  const JobInputs inputs_;
  const EventSink sink_ = [](const v1::EngineEvent&) {};
  JobState state_;
};

TEST_P(Artifact, ScoresFromTheFolderAsInMemoryBitForBit) {
  const ScoredModel in_memory =
      score(state_.config(), state_.ends, [&](int64_t index) -> absl::StatusOr<DecoderBlock> {
        return packed_block(state_, index, state_.blocks.get(index).value());
      });
  ASSERT_THAT(write_artifact(state_), testing::IsOk());
  QAAS_ASSERT_OK_AND_ASSIGN(const LoadedArtifact artifact, load_artifact(folders_.out));
  const ScoredModel from_folder =
      score(artifact.reader.config(), artifact.ends,
            [&](int64_t index) { return load_artifact_block(artifact.reader, index); });
  EXPECT_EQ(from_folder.score.loss, in_memory.score.loss);
  EXPECT_TRUE(same_bits(from_folder.hidden, in_memory.hidden));
  EXPECT_TRUE(same_bits(head_weight(artifact.ends, torch::kFloat32),
                        head_weight(state_.ends, torch::kFloat32)));
  const auto& [tied, head, embedding, activations] = GetParam();
  EXPECT_EQ(artifact.ends.quantized_head != nullptr, head != 0);
  EXPECT_EQ(artifact.reader.config().tie_word_embeddings, tied && head == 0);
  EXPECT_EQ(artifact.reader.activations().size(), activations == 0 ? 0u : 14u);
  // Each part has an effect.
  const ScoredModel original = score(state_.config(), state_.original_ends, [&](int64_t index) {
    return dense_block(inputs_.model, index);
  });
  EXPECT_NE(from_folder.score.loss, original.score.loss);
  EXPECT_NEAR(from_folder.score.loss, original.score.loss, 0.5);
}

INSTANTIATE_TEST_SUITE_P(Parts, Artifact,
                         ::testing::Values(Parts{false, 0, 0, 0}, Parts{true, 0, 0, 0},
                                           Parts{false, 8, 0, 0}, Parts{true, 8, 0, 0},
                                           Parts{false, 0, 8, 0}, Parts{true, 0, 8, 0},
                                           Parts{true, 8, 8, 0}, Parts{true, 0, 0, 4},
                                           Parts{false, 0, 0, 8}, Parts{true, 8, 8, 4}));

}  // namespace
}  // namespace qaas
