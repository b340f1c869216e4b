#include "workers/engine/quant/rotation.h"

#include <fstream>
#include <limits>

#include <absl/strings/match.h>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tensor_matchers.h"
#include "tests/support/tiny_llama.h"
#include "workers/engine/model/decoder.h"

namespace qaas {
namespace {

using ::testing::HasSubstr;
using testing::is_near;
using testing::IsOk;
using testing::read_file;
using testing::StatusIs;
using testing::TemporaryFolder;
using testing::write_tiny_llama;

/// Logits in float32 throughout. ids: [windows, seq] → [windows * seq, vocab]
torch::Tensor logits(const ModelFolder& model, const torch::Tensor& ids) {
  const torch::NoGradGuard no_grad;
  const TensorSource source = [&](const std::string& name) -> const TensorView& {
    return model.tensor(name);
  };
  const ModelEnds ends = load_ends(model.config(), source);
  const RopeTable rope = make_rope_table(model.config(), ids.size(1));
  torch::Tensor stream = embed(ends, ids);
  for (int64_t i = 0; i < model.config().num_hidden_layers; ++i) {
    DecoderBlock block = load_block(model.config(), source, i).value();
    stream = block->forward(stream, rope, torch::kFloat32);
  }
  return torch::mm(final_hidden(ends, stream.view({-1, stream.size(2)})),
                   ends.head.to(torch::kFloat32).t());
}

class RotationTest : public ::testing::Test {
 protected:
  absl::StatusOr<ModelFolder> rotated(const ModelFolder& model, uint64_t seed = 2) {
    const auto out = folder_ / ("rotated" + std::to_string(seed));
    const absl::Status status =
        rotate_checkpoint(model, out, {.seed = seed}, [](int64_t, int64_t) {}, {});
    if (!status.ok()) return status;
    return ModelFolder::open(out);
  }
  /// Rounding apart, the rotated model computes the same function.
  void expect_same_function(const ModelFolder& model) {
    const auto turned = rotated(model);
    ASSERT_THAT(turned, IsOk());
    torch::manual_seed(1);
    const torch::Tensor ids = torch::randint(model.config().vocab_size, {2, 24}, torch::kInt64);
    EXPECT_TRUE(is_near(logits(*turned, ids), logits(model, ids), 2e-5));
    EXPECT_FALSE(turned->config().tie_word_embeddings);
  }

  TemporaryFolder folder_;
};

TEST_F(RotationTest, KeepsTheFunctionOfAModelWithAHeadOfItsOwnOrTied) {
  for (const bool tied : {false, true}) {
    TemporaryFolder folder;
    const ModelFolder model = write_tiny_llama(folder / "model", {.tied = tied, .seed = 4});
    std::filesystem::remove_all(folder_ / "rotated2");
    expect_same_function(model);
  }
}

TEST_F(RotationTest, KeepsTheFunctionWhereNoHadamardMatrixExists) {
  expect_same_function(write_tiny_llama(
      folder_ / "model",
      {.hidden = 70, .heads = 2, .kv_heads = 1, .head_dim = 16, .dtype = Dtype::kBf16}));
}

TEST_F(RotationTest, KeepsTheFunctionOfTheDemoModel) {
  const auto model =
      ModelFolder::open(testing::source_folder() / "tests/data/demo/models/kjv-sotu-4m");
  ASSERT_THAT(model, IsOk());
  expect_same_function(*model);
}

TEST_F(RotationTest, KeepsTheFunctionOfStories15m) {
  const auto path = testing::shared_folder() / "models" / "stories15M";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  const auto model = ModelFolder::open(path);
  ASSERT_THAT(model, IsOk());
  expect_same_function(*model);
}

TEST_F(RotationTest, FoldsEveryNormAndSpreadsASingleLargeChannel) {
  const ModelFolder model = write_tiny_llama(
      folder_ / "model", {}, [](const std::string& name, std::vector<float>& values) {
        if (name != "model.embed_tokens.weight") return;
        for (size_t i = 5; i < values.size(); i += 64) values[i] = 40;
      });
  const auto turned = rotated(model);
  ASSERT_THAT(turned, IsOk());
  for (const std::string norm : {"model.norm.weight", "model.layers.1.input_layernorm.weight",
                                 "model.layers.0.post_attention_layernorm.weight"}) {
    EXPECT_TRUE((to_float_tensor(turned->tensor(norm)) == 1).all().item<bool>()) << norm;
  }
  const auto largest = [](const ModelFolder& folder) {
    return to_float_tensor(folder.tensor("model.embed_tokens.weight")).abs().max().item<float>();
  };
  EXPECT_EQ(largest(model), 40);
  EXPECT_LT(largest(*turned), 40.0 / 8 + 3);  // 40 / sqrt(64), and what was there
}

TEST_F(RotationTest, SameSeedSameBytesAndSideFilesComeAlong) {
  TemporaryFolder again;
  const ModelFolder model = write_tiny_llama(folder_ / "model");
  std::ofstream(folder_ / "model" / "tokenizer.json") << "{}";
  const ModelFolder with_tokenizer = ModelFolder::open(folder_ / "model").value();
  ASSERT_THAT(rotated(with_tokenizer), IsOk());
  std::vector<int64_t> done;
  ASSERT_THAT(rotate_checkpoint(with_tokenizer, again / "rotated", {},
                                [&](int64_t part, int64_t count) {
                                  EXPECT_EQ(count, 4);
                                  done.push_back(part);
                                },
                                {}),
              IsOk());
  EXPECT_EQ(done, (std::vector<int64_t>{1, 2, 3, 4}));
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(again / "rotated")) {
    ++files;
    EXPECT_EQ(read_file(entry.path()), read_file(folder_ / "rotated2" / entry.path().filename()))
        << entry.path();
  }
  EXPECT_EQ(files, 4u + 3u);  // shards; index, config, tokenizer
  ASSERT_THAT(rotated(model, 3), IsOk());
  EXPECT_NE(read_file(folder_ / "rotated3" / "model-00002-of-00004.safetensors"),
            read_file(folder_ / "rotated2" / "model-00002-of-00004.safetensors"));
}

TEST_F(RotationTest, RefusesAFolderInUseAndWeightsThatAreNotFinite) {
  const ModelFolder model = write_tiny_llama(folder_ / "model");
  EXPECT_THAT(rotate_checkpoint(model, folder_ / "model", {}, [](int64_t, int64_t) {}, {}),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("empty folder")));
  const ModelFolder broken = write_tiny_llama(
      folder_ / "broken", {}, [](const std::string& name, std::vector<float>& values) {
        if (absl::EndsWith(name, "layers.1.mlp.up_proj.weight")) {
          values[7] = std::numeric_limits<float>::quiet_NaN();
        }
      });
  EXPECT_THAT(rotated(broken), StatusIs(absl::StatusCode::kInvalidArgument,
                                        HasSubstr("model.layers.1.mlp.up_proj.weight")));
}

TEST_F(RotationTest, AStoppedRotationLeavesNoModelBehind) {
  const ModelFolder model = write_tiny_llama(folder_ / "model");
  std::stop_source stop;
  EXPECT_THAT(rotate_checkpoint(
                  model, folder_ / "out", {}, [&](int64_t, int64_t) { stop.request_stop(); },
                  stop.get_token()),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("stopped")));
  EXPECT_FALSE(ModelFolder::open(folder_ / "out").ok());
}

}  // namespace
}  // namespace qaas
