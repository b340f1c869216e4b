#include "storage/checkpoint/model_folder.h"

#include <nlohmann/json.hpp>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace qaas {
namespace {

using nlohmann::json;
using ::qaas::testing::IsOk;
using ::qaas::testing::shared_folder;
using ::qaas::testing::source_folder;
using ::qaas::testing::StatusIs;
using ::qaas::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr char kIndex[] = "model.safetensors.index.json";

/// A tiny model whose tensors tests take away, add and spoil before they write it.
class ModelFolderTest : public ::testing::Test {
 protected:
  struct Tensor {
    Dtype dtype;
    std::vector<int64_t> shape;
    std::string bytes;
  };

  void SetUp() override { use_config(); }

  /// Fills tensors_ with what config_ asks for, and writes config.json.
  void use_config() {
    folder_.write("config.json", config_.dump());
    QAAS_ASSERT_OK_AND_ASSIGN(const auto config, parse_model_config(config_.dump()));
    tensors_.clear();
    for (const auto& expected : expected_tensors(config)) set(expected.name, expected.shape);
  }

  void set(const std::string& name, const std::vector<int64_t>& shape, Dtype dtype = Dtype::kBf16,
           char fill = 'w') {
    int64_t bytes = dtype_size(dtype);
    for (const int64_t dimension : shape) bytes *= dimension;
    tensors_[name] = {dtype, shape, std::string(static_cast<size_t>(bytes), fill)};
  }

  void write(const std::string& file, const std::vector<std::string>& names) {
    std::vector<TensorToWrite> tensors;
    for (const std::string& name : names) {
      const Tensor& tensor = tensors_.at(name);
      tensors.push_back({name, tensor.dtype, tensor.shape, std::as_bytes(std::span(tensor.bytes))});
    }
    ASSERT_THAT(write_safetensors(folder_ / file, tensors), IsOk());
  }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : tensors_) names.push_back(name);
    return names;
  }

  void write_single() { write("model.safetensors", names()); }

  /// Writes the tensors by turns into two shards; returns the index's weight_map.
  json write_shards() {
    std::vector<std::string> halves[2];
    json weight_map;
    int turn = 0;
    for (const std::string& name : names()) {
      weight_map[name] = shard(turn % 2);
      halves[turn++ % 2].push_back(name);
    }
    write(shard(0), halves[0]);
    write(shard(1), halves[1]);
    write_index(weight_map);
    return weight_map;
  }

  static std::string shard(int number) {
    return "model-0000" + std::to_string(number + 1) + "-of-00002.safetensors";
  }

  void write_index(const json& weight_map) {
    folder_.write(kIndex,
                  json{{"metadata", {{"total_size", 1}}}, {"weight_map", weight_map}}.dump());
  }

  absl::StatusOr<ModelFolder> open() const { return ModelFolder::open(folder_.path()); }

  TemporaryFolder folder_;
  json config_ = {{"architectures", {"LlamaForCausalLM"}},
                  {"model_type", "llama"},
                  {"vocab_size", 10},
                  {"hidden_size", 8},
                  {"intermediate_size", 12},
                  {"num_hidden_layers", 2},
                  {"num_attention_heads", 2}};
  std::map<std::string, Tensor> tensors_;
};

TEST_F(ModelFolderTest, OpensASingleFile) {
  set("model.norm.weight", {8}, Dtype::kF32, 'n');
  write_single();
  QAAS_ASSERT_OK_AND_ASSIGN(const auto model, open());
  EXPECT_EQ(model.config().hidden_size, 8);
  EXPECT_EQ(model.tensor("model.norm.weight").dtype, Dtype::kF32);
  EXPECT_EQ(model.tensor("model.norm.weight").bytes.front(), std::byte{'n'});
  EXPECT_EQ(model.weight_bytes(),
            static_cast<int64_t>(std::filesystem::file_size(folder_ / "model.safetensors")));
  EXPECT_THAT(model.check_unchanged(), IsOk());
}

TEST_F(ModelFolderTest, OpensShards) {
  write_shards();
  QAAS_ASSERT_OK_AND_ASSIGN(const auto model, open());
  for (const std::string& name : names()) {
    EXPECT_EQ(model.tensor(name).bytes.size(), tensors_.at(name).bytes.size()) << name;
  }
  EXPECT_EQ(model.weight_bytes(),
            static_cast<int64_t>(std::filesystem::file_size(folder_ / shard(0)) +
                                 std::filesystem::file_size(folder_ / shard(1))));
}

TEST_F(ModelFolderTest, KeepsItsTensorsWhenCopiedAndTheOriginalIsGone) {
  write_single();
  auto model = open();
  ASSERT_THAT(model, IsOk());
  const ModelFolder copy = *model;
  model = absl::UnknownError("gone");
  EXPECT_EQ(copy.tensor("model.norm.weight").bytes.back(), std::byte{'w'});
}

TEST_F(ModelFolderTest, RefusesASingleFileBesideAnIndexAndSaysWhichToRemove) {
  write_shards();
  write_single();
  EXPECT_THAT(open(), StatusIs(kInvalid, AllOf(HasSubstr("holds both"), HasSubstr("remove"))));
}

TEST_F(ModelFolderTest, ReportsWhatIsNotThere) {
  EXPECT_THAT(open(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("holds neither")));
  EXPECT_THAT(ModelFolder::open(folder_ / "none"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
  std::filesystem::remove(folder_ / "config.json");
  EXPECT_THAT(open(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("config.json")));
}

TEST_F(ModelFolderTest, NamesTheFileOfABadConfig) {
  folder_.write("config.json", R"({"model_type": "bert"})");
  write_single();
  EXPECT_THAT(open(), StatusIs(kInvalid, AllOf(HasSubstr("config.json: "), HasSubstr("'bert'"))));
}

TEST_F(ModelFolderTest, NamesTheFileOfATruncatedSafetensors) {
  write_single();
  const auto path = folder_ / "model.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  EXPECT_THAT(open(), StatusIs(kInvalid,
                               AllOf(HasSubstr(path.filename().string()), HasSubstr("truncated"))));
}

TEST_F(ModelFolderTest, RefusesAMissingTensorByName) {
  tensors_.erase("model.layers.1.mlp.up_proj.weight");
  write_single();
  EXPECT_THAT(open(),
              StatusIs(kInvalid, HasSubstr("'model.layers.1.mlp.up_proj.weight' is missing, "
                                           "config.json expects it with shape [12, 8]")));
}

TEST_F(ModelFolderTest, RefusesAMissingHeadAndSaysWhatWouldMakeItRight) {
  tensors_.erase("lm_head.weight");
  write_single();
  EXPECT_THAT(open(), StatusIs(kInvalid, HasSubstr("tie_word_embeddings true")));
}

TEST_F(ModelFolderTest, RefusesAnUnexpectedTensorByName) {
  set("model.layers.0.self_attn.q_proj.bias", {8});
  write_single();
  EXPECT_THAT(open(),
              StatusIs(kInvalid, HasSubstr("'model.layers.0.self_attn.q_proj.bias' of shape "
                                           "[8] is not part of a llama model")));
}

TEST_F(ModelFolderTest, RefusesAWrongShapeWithBothShapes) {
  set("model.layers.0.mlp.down_proj.weight", {12, 8});
  write_single();
  EXPECT_THAT(open(), StatusIs(kInvalid, HasSubstr("'model.layers.0.mlp.down_proj.weight': shape "
                                                   "[12, 8], config.json says [8, 12]")));
}

TEST_F(ModelFolderTest, RefusesATypeThatIsNotFloating) {
  set("model.norm.weight", {8}, Dtype::kI32);
  write_single();
  EXPECT_THAT(open(), StatusIs(kInvalid, HasSubstr("dtype I32, accepted: F32, F16, BF16")));
}

TEST_F(ModelFolderTest, IgnoresRotaryBuffers) {
  set("model.layers.0.self_attn.rotary_emb.inv_freq", {2}, Dtype::kF32);
  write_single();
  EXPECT_THAT(open(), IsOk());
}

TEST_F(ModelFolderTest, TakesTheHeadOfATiedModelOnlyAsACopyOfTheEmbedding) {
  config_["tie_word_embeddings"] = true;
  use_config();
  ASSERT_FALSE(tensors_.contains("lm_head.weight"));
  write_single();
  EXPECT_THAT(open(), IsOk());
  set("lm_head.weight", {10, 8});
  write_single();
  EXPECT_THAT(open(), IsOk());
  set("lm_head.weight", {10, 8}, Dtype::kBf16, 'x');
  write_single();
  EXPECT_THAT(open(), StatusIs(kInvalid, HasSubstr("'lm_head.weight' differs")));
}

TEST_F(ModelFolderTest, RefusesAnIndexThatDisagreesWithItsShards) {
  const json good = write_shards();
  json moved = good;
  moved["model.norm.weight"] = good["model.norm.weight"] == shard(0) ? shard(1) : shard(0);
  write_index(moved);
  EXPECT_THAT(open(), StatusIs(kInvalid, AllOf(HasSubstr(kIndex), HasSubstr("model.norm.weight"))));
  json unlisted = good;
  unlisted.erase("model.norm.weight");
  write_index(unlisted);
  EXPECT_THAT(open(), StatusIs(kInvalid, HasSubstr("the index says nothing of it")));
  json invented = good;
  invented["model.extra.weight"] = shard(0);
  write_index(invented);
  EXPECT_THAT(open(), StatusIs(kInvalid, HasSubstr("'model.extra.weight' is not in")));
}

TEST_F(ModelFolderTest, RefusesATensorThatTwoShardsHold) {
  const json good = write_shards();
  const auto all = names();
  write(shard(0), all);
  EXPECT_THAT(open(), StatusIs(kInvalid, HasSubstr(kIndex)));
}

TEST_F(ModelFolderTest, RefusesAMissingShard) {
  write_shards();
  std::filesystem::remove(folder_ / shard(1));
  EXPECT_THAT(open(), StatusIs(absl::StatusCode::kNotFound, HasSubstr(shard(1))));
}

TEST_F(ModelFolderTest, TreatsTheFileNamesOfAnIndexAsHostile) {
  const json good = write_shards();
  const TemporaryFolder outside;
  std::filesystem::copy_file(folder_ / shard(0), outside / "outside.safetensors");
  for (const std::string& hostile :
       {std::string("../") + outside.path().filename().string() + "/outside.safetensors",
        (outside / "outside.safetensors").string(), std::string("./") + shard(0),
        std::string("sub/") + shard(0), std::string(".safetensors"), std::string("..safetensors"),
        std::string("a\nb.safetensors"), std::string("/.safetensors")}) {
    json weight_map = good;
    for (auto& [tensor, file] : weight_map.items()) {
      if (file == shard(0)) file = hostile;
    }
    write_index(weight_map);
    EXPECT_THAT(open(), StatusIs(kInvalid, HasSubstr("not a plain file name"))) << hostile;
  }
  for (const json& other : {json(3), json("model.bin"), json(""), json(nullptr)}) {
    json weight_map = good;
    weight_map["model.norm.weight"] = other;
    write_index(weight_map);
    EXPECT_THAT(open(), StatusIs(kInvalid, HasSubstr(".safetensors file"))) << other;
  }
}

TEST_F(ModelFolderTest, RefusesAMalformedIndex) {
  write_shards();
  for (const char* text : {"[]", "{}", R"({"weight_map": {}})", R"({"weight_map": []})", "{",
                           R"({"weight_map": {"a": "b.safetensors", "a": "b.safetensors"}})"}) {
    folder_.write(kIndex, text);
    EXPECT_THAT(open(), StatusIs(kInvalid, HasSubstr(kIndex))) << text;
  }
}

TEST_F(ModelFolderTest, RefusesSymlinksThatLeaveTheFolderAndFollowsThoseInside) {
  write_single();
  const TemporaryFolder outside;
  std::filesystem::rename(folder_ / "model.safetensors", outside / "w");
  std::filesystem::create_symlink(outside / "w", folder_ / "model.safetensors");
  EXPECT_THAT(open(), StatusIs(kInvalid, HasSubstr("leaves the folder")));
  std::filesystem::remove(folder_ / "model.safetensors");
  std::filesystem::rename(outside / "w", folder_ / "weights-blob");
  std::filesystem::create_symlink("weights-blob", folder_ / "model.safetensors");
  EXPECT_THAT(open(), IsOk());
}

TEST_F(ModelFolderTest, RefusesASideFileThatPointsOutOfTheFolder) {
  write_single();
  const TemporaryFolder outside;
  std::filesystem::create_symlink(outside.write("secret", "x"), folder_ / "generation_config.json");
  EXPECT_THAT(open(), StatusIs(kInvalid, AllOf(HasSubstr("generation_config.json"),
                                               HasSubstr("leaves the folder"))));
}

TEST_F(ModelFolderTest, ListsSideFilesWithoutWeightsIndexesHiddenOrPickledOnes) {
  write_single();
  for (const char* name : {"tokenizer.json", "README.md", ".gitattributes", "pytorch_model.bin",
                           "optimizer.pt", "consolidated.00.pth", "extra.safetensors",
                           "pytorch_model.bin.index.json", "tokenizer.model", "LICENSE"}) {
    folder_.write(name, "x");
  }
  std::filesystem::create_directory(folder_ / "original");
  QAAS_ASSERT_OK_AND_ASSIGN(const auto model, open());
  EXPECT_THAT(model.side_files(), ElementsAre("LICENSE", "README.md", "config.json",
                                              "tokenizer.json", "tokenizer.model"));
}

TEST_F(ModelFolderTest, NoticesWeightsThatChangedAfterItWasOpened) {
  write_shards();
  QAAS_ASSERT_OK_AND_ASSIGN(const auto model, open());
  std::filesystem::resize_file(folder_ / shard(1), 16);
  EXPECT_THAT(model.check_unchanged(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(shard(1))));
}

TEST(RealModelFolder, OpensTheDemoModel) {
  QAAS_ASSERT_OK_AND_ASSIGN(
      const auto model, ModelFolder::open(source_folder() / "tests/data/demo/models/kjv-sotu-4m"));
  EXPECT_EQ(model.config().hidden_size, 256);
  EXPECT_TRUE(model.config().tie_word_embeddings);
  EXPECT_EQ(model.config().bos_token_id, 2046);
  EXPECT_EQ(parameter_count(model.config()), 3672320);
}

TEST(RealModelFolder, OpensStories15M) {
  const auto path = shared_folder() / "models/stories15M";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is absent";
  QAAS_ASSERT_OK_AND_ASSIGN(const auto model, ModelFolder::open(path));
  EXPECT_EQ(parameter_count(model.config()), 15191712);
  EXPECT_EQ(model.tensor("model.embed_tokens.weight").dtype, Dtype::kF16);
}

}  // namespace
}  // namespace qaas
