#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/spec/job_spec.h"
#include "tests/proto/spec/sample_job.h"

namespace qaas {
namespace {

using ::qaas::testing::minimal_spec;
using ::qaas::testing::round_to_nearest_spec;
using ::qaas::testing::small_model;

Footprint footprint_of(const v1::JobSpec& spec, const v1::Model& model) {
  return footprint(with_defaults(spec, model), model);
}

// Printed averages of the EfficientQAT paper: bits + (bits + 16) / group size.
TEST(Footprint, BitsPerWeightAreThePapers) {
  struct Expected {
    int bits;
    int group_size;
    double average;
  };
  for (const Expected& expected : std::vector<Expected>{{4, 32, 4.63},
                                                        {4, 64, 4.31},
                                                        {4, 128, 4.16},
                                                        {3, 32, 3.59},
                                                        {3, 64, 3.30},
                                                        {3, 128, 3.15},
                                                        {2, 32, 2.56},
                                                        {2, 64, 2.28},
                                                        {2, 128, 2.14}}) {
    v1::JobSpec spec = minimal_spec(expected.bits);
    spec.mutable_weights()->set_group_size(expected.group_size);
    EXPECT_NEAR(footprint_of(spec, small_model()).bits_per_weight, expected.average, 0.0051)
        << expected.bits << " bits, groups of " << expected.group_size;
  }
}

// One projection [64, 128] at 4 bits, groups of 32: qweight 64*128/2, qzeros 4*64/2, scales 4*64*2,
// g_idx 128*4; 100 parameters stay, in two bytes each.
TEST(Footprint, ArtifactBytesFollowTheGptqLayout) {
  v1::Model model;
  model.set_name("models/one");
  model.set_parameter_count(64 * 128 + 100);
  model.set_size_bytes(2 * model.parameter_count());
  testing::add_projection(model, "p", 64, 128);
  v1::JobSpec spec = round_to_nearest_spec(4);
  spec.mutable_weights()->set_group_size(32);
  const int64_t tensors = 4096 + 128 + 512 + 512 + 200;
  const Footprint result = footprint_of(spec, model);
  EXPECT_GE(result.artifact_bytes, tensors);
  EXPECT_LE(result.artifact_bytes, tensors + 1024) << "the header of a few tensors is small";
  EXPECT_EQ(result.original_bytes, model.size_bytes());
}

TEST(Footprint, GrowsWithWidthAndWithKeptProjections) {
  v1::JobSpec kept = minimal_spec(2);
  kept.add_overrides()->set_pattern("*.down_proj");
  kept.mutable_overrides(0)->set_keep_full_precision(true);
  const int64_t two = footprint_of(minimal_spec(2), small_model()).artifact_bytes;
  const int64_t eight = footprint_of(minimal_spec(8), small_model()).artifact_bytes;
  EXPECT_LT(two, footprint_of(kept, small_model()).artifact_bytes);
  EXPECT_LT(two, eight);
  EXPECT_LT(eight, small_model().size_bytes());
}

TEST(Footprint, TwoStreamsOfEveryWindowAreCachedAndSpillBeyondTheBudget) {
  v1::JobSpec few = minimal_spec();
  few.mutable_calibration()->set_samples(1024);
  v1::JobSpec many = few;
  many.mutable_calibration()->set_samples(4096);
  const int64_t streams = 2LL * 4096 * 256 * 256 * 4;
  const Footprint in_memory = footprint_of(many, small_model());
  EXPECT_EQ(in_memory.cache_bytes, streams);
  EXPECT_EQ(in_memory.spilled_bytes, 0);
  EXPECT_EQ(in_memory.memory_bytes - footprint_of(few, small_model()).memory_bytes,
            streams / 4 * 3);
  constexpr int64_t kBudget = 1 << 20;
  const Footprint spilled = footprint(with_defaults(many, small_model()), small_model(), kBudget);
  EXPECT_EQ(spilled.spilled_bytes, streams - kBudget);
  EXPECT_EQ(spilled.disk_bytes - in_memory.disk_bytes, streams - kBudget);
  EXPECT_LT(spilled.memory_bytes, in_memory.memory_bytes - streams / 2);
}

TEST(Footprint, BlockWiseStagesDoNotGrowWithTheNumberOfBlocks) {
  v1::JobSpec spec = minimal_spec(2);
  spec.mutable_e2e_qp()->set_epochs(0);
  const auto stages = [&](int blocks) {
    return footprint_of(spec, testing::llama(blocks, 256, 768, 2048, 128)).stages;
  };
  const auto shallow = stages(4), deep = stages(400);
  ASSERT_EQ(shallow.size(), 2u);
  EXPECT_EQ(shallow[0].stage, "scoring");
  EXPECT_EQ(shallow[1].stage, "block training");
  for (size_t i = 0; i < shallow.size(); ++i) EXPECT_EQ(shallow[i].bytes, deep[i].bytes);
}

TEST(Footprint, EndToEndTrainingHoldsAllPackedBlocksOrSixteenBytesAWeight) {
  const v1::Model model = testing::llama(32, 1024, 2816, 2048, 1024);
  double weights = 0;
  for (const auto& projection : model.projections()) {
    weights += double(projection.output_size()) * projection.input_size();
  }
  const Footprint packed = footprint_of(minimal_spec(4), model);
  ASSERT_EQ(packed.stages.back().stage, "end-to-end training");
  EXPECT_GT(packed.stages.back().bytes, weights * 4 / 8);
  v1::JobSpec all = minimal_spec(4);
  all.mutable_e2e_qp()->set_weight_learning_rate(1e-5);
  EXPECT_GT(double(footprint_of(all, model).stages.back().bytes), 16 * weights);
  EXPECT_EQ(footprint_of(round_to_nearest_spec(), model).stages.size(), 1u);
}

TEST(Footprint, SaysWhichRuntimesLoadAndWhyOthersDoNot) {
  const Footprint four = footprint_of(minimal_spec(4), small_model());
  ASSERT_EQ(four.runtimes.size(), 3u);
  EXPECT_EQ(four.runtimes[0].runtime(), "gptqmodel");
  EXPECT_TRUE(four.runtimes[0].loads());
  EXPECT_EQ(four.runtimes[1].runtime(), "vllm");
  EXPECT_TRUE(four.runtimes[1].loads());
  EXPECT_THAT(four.runtimes[1].reason(), ::testing::IsEmpty());
  EXPECT_EQ(four.runtimes[2].runtime(), "llama_cpp");
  EXPECT_FALSE(four.runtimes[2].loads());
  EXPECT_THAT(four.runtimes[2].reason(), ::testing::HasSubstr("GGUF"));

  const Footprint two = footprint_of(minimal_spec(2), small_model());
  EXPECT_TRUE(two.runtimes[0].loads());
  EXPECT_FALSE(two.runtimes[1].loads());
  EXPECT_THAT(two.runtimes[1].reason(), ::testing::HasSubstr("4 bits symmetric would load"));
}

TEST(Footprint, SaysThatNoRuntimeAppliesQuantizedActivations) {
  v1::JobSpec spec = minimal_spec(4);
  spec.mutable_activations()->set_bits(8);
  const Footprint bytes = footprint_of(spec, small_model());
  for (const int runtime : {0, 1}) {
    EXPECT_TRUE(bytes.runtimes[runtime].loads());
    EXPECT_THAT(bytes.runtimes[runtime].reason(),
                ::testing::HasSubstr("8-bit activations measured here are in manifest.json only"));
  }
}

}  // namespace
}  // namespace qaas
