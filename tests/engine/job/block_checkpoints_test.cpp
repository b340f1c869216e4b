#include "workers/engine/job/block_checkpoints.h"

#include <cstring>
#include <random>

#include "storage/checkpoint/safetensors.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tensor_matchers.h"
#include "workers/engine/quant/bit_packing.h"

namespace qaas {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::read_file;
using testing::StatusIs;
using testing::TemporaryFolder;

constexpr auto kBlock = BlockCheckpoints::Stage::kBlockTraining;
constexpr auto kEndToEnd = BlockCheckpoints::Stage::kEndToEnd;

QuantizedWeight random_weight(int bits, int64_t group_size, uint32_t seed) {
  std::mt19937 random(seed);
  QuantizedWeight weight{.rows = 4, .cols = 64, .bits = bits, .group_size = group_size};
  std::vector<uint8_t> codes(4 * 64);
  for (uint8_t& code : codes) code = static_cast<uint8_t>(random() % (1u << bits));
  weight.packed = pack_rows(codes, 4, 64, bits);
  for (int64_t i = 0; i < 4 * 64 / group_size; ++i) {
    weight.zero_points.push_back(static_cast<uint8_t>(random() % (1u << bits)));
    weight.scales.push_back(0.25f + static_cast<float>(random() % 64) / 256);
  }
  return weight;
}

QuantizedBlock random_block(uint32_t seed) {
  torch::manual_seed(seed);
  return {.projections = {{"mlp.up_proj", random_weight(3, 32, seed)},
                          {"self_attn.q_proj", random_weight(2, 64, seed + 1)}},
          .norms = {{"input_layernorm.weight", torch::randn({64})},
                    {"post_attention_layernorm.weight", torch::randn({64})}},
          .activations = {{"mlp.up_proj", {{.bits = 4, .group_size = 32}, 0.7f}},
                          {"mlp.down_proj", {{.bits = 8}, 1}}}};
}

class BlockCheckpointsTest : public ::testing::Test {
 protected:
  TemporaryFolder folder_;
  const BlockCheckpoints::Identity identity_{.fingerprint = "f", .host = "h"};
  const BlockCheckpoints checkpoints_{folder_.path(), identity_};
};

TEST_F(BlockCheckpointsTest, WhatIsSavedIsLoaded) {
  const QuantizedBlock saved = random_block(1);
  QAAS_ASSERT_OK_AND_ASSIGN(const std::string name,
                            checkpoints_.save(kBlock, 3, saved, std::nullopt));
  EXPECT_EQ(name, "block-0003.safetensors");
  QAAS_ASSERT_OK_AND_ASSIGN(const auto loaded, checkpoints_.load(kBlock, 3));
  ASSERT_TRUE(loaded.has_value());
  EXPECT_FALSE(loaded->other_host);
  EXPECT_EQ(loaded->block.activations, saved.activations);
  ASSERT_EQ(loaded->block.projections.size(), saved.projections.size());
  for (const auto& [projection, weight] : saved.projections) {
    const QuantizedWeight& found = loaded->block.projections.at(projection);
    EXPECT_EQ(found.rows, weight.rows);
    EXPECT_EQ(found.cols, weight.cols);
    EXPECT_EQ(found.bits, weight.bits);
    EXPECT_EQ(found.group_size, weight.group_size);
    EXPECT_EQ(found.symmetric, weight.symmetric);
    EXPECT_EQ(found.packed, weight.packed);
    EXPECT_EQ(found.zero_points, weight.zero_points);
    EXPECT_EQ(found.scales, weight.scales);
  }
  ASSERT_EQ(loaded->block.norms.size(), 2u);
  for (const auto& [norm, values] : saved.norms) {
    EXPECT_TRUE(testing::same_bits(loaded->block.norms.at(norm), values)) << norm;
  }
}

TEST_F(BlockCheckpointsTest, StagesAndBlocksHaveFilesOfTheirOwn) {
  ASSERT_THAT(checkpoints_.save(kBlock, 0, random_block(1), std::nullopt), IsOk());
  for (const auto& [stage, index] : {std::pair(kBlock, 1), std::pair(kEndToEnd, 0)}) {
    QAAS_ASSERT_OK_AND_ASSIGN(const auto loaded, checkpoints_.load(stage, index));
    EXPECT_FALSE(loaded.has_value());
  }
}

TEST_F(BlockCheckpointsTest, OtherWorkIsNotResumedFrom) {
  ASSERT_THAT(checkpoints_.save(kBlock, 0, random_block(1), std::nullopt), IsOk());
  const BlockCheckpoints other(folder_.path(), {.fingerprint = "g", .host = "h"});
  QAAS_ASSERT_OK_AND_ASSIGN(const auto loaded, other.load(kBlock, 0));
  EXPECT_FALSE(loaded.has_value());
}

TEST_F(BlockCheckpointsTest, AnotherHostIsToldApart) {
  ASSERT_THAT(checkpoints_.save(kBlock, 0, random_block(1), std::nullopt), IsOk());
  const BlockCheckpoints other(folder_.path(), {.fingerprint = "f", .host = "elsewhere"});
  QAAS_ASSERT_OK_AND_ASSIGN(const auto loaded, other.load(kBlock, 0));
  ASSERT_TRUE(loaded.has_value());
  EXPECT_TRUE(loaded->other_host);
}

TEST_F(BlockCheckpointsTest, EveryTruncatedFileIsRefusedByName) {
  QAAS_ASSERT_OK_AND_ASSIGN(const std::string name,
                            checkpoints_.save(kBlock, 0, random_block(1), std::nullopt));
  const std::string whole = read_file(folder_ / name);
  for (size_t size = 0; size < whole.size(); size += size < 16 ? 1 : 37) {
    folder_.write(name, whole.substr(0, size));
    ASSERT_THAT(checkpoints_.load(kBlock, 0),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(name)))
        << size << " bytes";
  }
}

/// A checkpoint of one projection [4, 64] of 2 bits with this text for its grids.
absl::Status write_with_grids(const std::filesystem::path& path, const std::string& grids) {
  const std::vector<std::byte> codes(4 * 4 * 4), zeros(4 * 2), scales(4 * 2 * 4);
  return write_safetensors(path,
                           {{"p.codes", Dtype::kU32, {4, 4}, codes},
                            {"p.zero_points", Dtype::kU8, {4, 2}, zeros},
                            {"p.scales", Dtype::kF32, {4, 2}, scales}},
                           {{"qaas_checkpoint_version", "1"},
                            {"fingerprint", "f"},
                            {"host", "h"},
                            {"grids", grids},
                            {"activations", "{}"}});
}

TEST_F(BlockCheckpointsTest, GridsThatDoNotFitTheTensorsAreRefused) {
  const auto grid = [](const std::string& rest) {
    return R"({"p": {"rows": 4, "symmetric": false, )" + rest + "}}";
  };
  const std::filesystem::path path = folder_ / "block-0000.safetensors";
  ASSERT_THAT(write_with_grids(path, grid(R"("cols": 64, "bits": 2, "group_size": 32)")), IsOk());
  ASSERT_THAT(checkpoints_.load(kBlock, 0), IsOk());
  for (const std::string& bad :
       {std::string("not json"), std::string("[]"), std::string(R"({"p": 3})"),
        std::string(R"({"q": {}})"), grid(R"("cols": 64, "bits": 2)"),
        grid(R"("cols": 64, "bits": 2, "group_size": 64)"),
        grid(R"("cols": 64, "bits": 2, "group_size": 0)"),
        grid(R"("cols": 64, "bits": 2, "group_size": 48)"),
        grid(R"("cols": 64, "bits": 5, "group_size": 32)"),
        grid(R"("cols": 64, "bits": 4, "group_size": 32)"),
        grid(R"("cols": 96, "bits": 2, "group_size": 32)"),
        grid(R"("cols": -64, "bits": 2, "group_size": 32)"),
        grid(R"("cols": 4611686018427387904, "bits": 2, "group_size": 32)"),
        grid(R"("cols": 64.0, "bits": 2, "group_size": 32)")}) {
    ASSERT_THAT(write_with_grids(path, bad), IsOk());
    EXPECT_THAT(checkpoints_.load(kBlock, 0),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("block-0000.safetensors")))
        << bad;
  }
}

EndToEndState random_state() {
  torch::manual_seed(4);
  return {.step = 3,
          .losses = {1.0 / 3, 0.1, 1e-300},
          .validation_losses = {2.0 / 3, 0.2},
          .validation_steps = {0, 2},
          .tensors = {{"parameter/block.0.mlp.up_proj.scale", torch::randn({4, 2})},
                      {"first_moment/final_norm", torch::randn({5})}}};
}

TEST_F(BlockCheckpointsTest, AStateIsLoadedBitForBitAndTheLatestReplacesTheOneBefore) {
  EndToEndState state = random_state();
  QAAS_ASSERT_OK_AND_ASSIGN(const auto none, checkpoints_.load_state());
  EXPECT_FALSE(none.has_value());
  ASSERT_THAT(checkpoints_.save_state({}), IsOk());
  QAAS_ASSERT_OK_AND_ASSIGN(const std::string name, checkpoints_.save_state(state));
  EXPECT_EQ(name, "end-to-end-state.safetensors");
  QAAS_ASSERT_OK_AND_ASSIGN(const auto loaded, checkpoints_.load_state());
  ASSERT_TRUE(loaded.has_value());
  EXPECT_FALSE(loaded->other_host);
  EXPECT_EQ(loaded->state.step, state.step);
  EXPECT_EQ(loaded->state.losses, state.losses);
  EXPECT_EQ(loaded->state.validation_losses, state.validation_losses);
  EXPECT_EQ(loaded->state.validation_steps, state.validation_steps);
  ASSERT_EQ(loaded->state.tensors.size(), state.tensors.size());
  for (const auto& [tensor, values] : state.tensors) {
    EXPECT_TRUE(testing::same_bits(loaded->state.tensors.at(tensor), values)) << tensor;
  }
}

TEST_F(BlockCheckpointsTest, AStateOfOtherWorkOrAnotherHostIsToldApart) {
  ASSERT_THAT(checkpoints_.save_state(random_state()), IsOk());
  const BlockCheckpoints work(folder_.path(), {.fingerprint = "g", .host = "h"});
  QAAS_ASSERT_OK_AND_ASSIGN(const auto other_work, work.load_state());
  EXPECT_FALSE(other_work.has_value());
  const BlockCheckpoints host(folder_.path(), {.fingerprint = "f", .host = "elsewhere"});
  QAAS_ASSERT_OK_AND_ASSIGN(const auto other_host, host.load_state());
  ASSERT_TRUE(other_host.has_value());
  EXPECT_TRUE(other_host->other_host);
}

TEST_F(BlockCheckpointsTest, EveryTruncatedStateIsRefusedByName) {
  QAAS_ASSERT_OK_AND_ASSIGN(const std::string name, checkpoints_.save_state(random_state()));
  const std::string whole = read_file(folder_ / name);
  for (size_t size = 0; size < whole.size(); size += size < 16 ? 1 : 37) {
    folder_.write(name, whole.substr(0, size));
    ASSERT_THAT(checkpoints_.load_state(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(name)))
        << size << " bytes";
  }
}

TEST_F(BlockCheckpointsTest, AStateWhoseLossesDoNotFitItsStepIsRefused) {
  EndToEndState state = random_state();
  state.step = 4;
  ASSERT_THAT(checkpoints_.save_state(state), IsOk());
  EXPECT_THAT(checkpoints_.load_state(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("step '4'")));
}

}  // namespace
}  // namespace qaas
