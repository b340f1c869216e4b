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

TEST(Footprint, TrainingNeedsMemoryForEveryWindow) {
  v1::JobSpec few = minimal_spec();
  few.mutable_calibration()->set_samples(1024);
  v1::JobSpec many = few;
  many.mutable_calibration()->set_samples(4096);
  const int64_t three_streams = 3LL * (4096 - 1024) * 256 * 256 * 4;
  EXPECT_EQ(footprint_of(many, small_model()).memory_bytes -
                footprint_of(few, small_model()).memory_bytes,
            three_streams);
  EXPECT_LT(footprint_of(round_to_nearest_spec(), small_model()).memory_bytes,
            footprint_of(many, small_model()).memory_bytes);
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
