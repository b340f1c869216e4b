#include "workers/engine/exporters/artifact_writer.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/digest.h"
#include "tests/engine/exporters/artifact_fixture.h"

namespace qaas {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using qaas::testing::IsOk;
using qaas::testing::kDown;
using qaas::testing::kQuery;
using qaas::testing::read_text;
using qaas::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

using ArtifactWriterTest = qaas::testing::ArtifactTest;

class EveryArtifactGrid : public qaas::testing::ArtifactTest,
                          public ::testing::WithParamInterface<GptqGrid> {};

INSTANTIATE_TEST_SUITE_P(Grids, EveryArtifactGrid, ::testing::ValuesIn([] {
                           std::vector<GptqGrid> grids;
                           for (int bits : {2, 3, 4, 8}) {
                             for (int64_t group_size : {32, 64, 128, -1}) {
                               for (bool symmetric : {false, true}) {
                                 grids.push_back({bits, group_size, symmetric});
                               }
                             }
                           }
                           return grids;
                         }()),
                         [](const auto& info) {
                           const GptqGrid& g = info.param;
                           return absl::StrCat(
                               "b", g.bits, "_g",
                               g.group_size < 0 ? "row" : absl::StrCat(g.group_size),
                               g.symmetric ? "_sym" : "_asym");
                         });

TEST_P(EveryArtifactGrid, ReadsBackWhatWasWritten) {
  write(GetParam());
  expect_same_weights();
}

TEST_F(ArtifactWriterTest, AnIndependentReaderSeesTheSameValues) {
  for (int bits : {2, 3, 4, 8}) {
    write({bits, bits == 3 ? -1 : 32, bits == 8});
    expect_python_agrees();
  }
}

TEST_F(ArtifactWriterTest, ExceptionsAreReadBackByUsAndByAnIndependentReader) {
  const GptqGrids exceptions = {
      {kDown, {8, 128, true}}, {"model.layers.0.mlp.up_proj", {3, 64, false}}, {kQuery, {}}};
  write({4, 32, false}, exceptions);
  expect_same_weights();
  expect_python_agrees();
  QAAS_ASSERT_OK_AND_ASSIGN(const ArtifactReader reader, ArtifactReader::open(out_));
  EXPECT_EQ(reader.grids().at(kDown), (GptqGrid{8, 128, true}));
  EXPECT_EQ(reader.grids().at(kQuery).bits, 0);
  const TensorView& query = reader.tensor(std::string(kQuery) + ".weight");
  const TensorView& original = source_.tensor(std::string(kQuery) + ".weight");
  EXPECT_TRUE(std::equal(query.bytes.begin(), query.bytes.end(), original.bytes.begin(),
                         original.bytes.end()));
}

TEST_F(ArtifactWriterTest, TrainedNormsAreF16AndOtherTensorsKeepTheSourcesType) {
  write({2, 64, false});
  QAAS_ASSERT_OK_AND_ASSIGN(const ArtifactReader reader, ArtifactReader::open(out_));
  const TensorView& norm = reader.tensor("model.norm.weight");
  EXPECT_EQ(norm.dtype, Dtype::kF16);
  EXPECT_EQ(norm.bytes[0], std::byte{0x00});  // 1.5 in fp16 is 3e00
  EXPECT_EQ(norm.bytes[1], std::byte{0x3e});
  const TensorView& embedding = reader.tensor("model.embed_tokens.weight");
  EXPECT_EQ(embedding.dtype, Dtype::kBf16);
  EXPECT_EQ(embedding.bytes.size(), 64u * 128 * 2);
  EXPECT_EQ(reader.config().hidden_size, 128);
  EXPECT_EQ(reader.weight_bytes(), static_cast<int64_t>(fs::file_size(out_ / "model.safetensors")));
}

TEST_F(ArtifactWriterTest, ConfigKeepsTheSourcesFieldsAndGainsTheQuantization) {
  write({2, -1, false}, {{kDown, {4, 64, true}}, {kQuery, {}}});
  const json config = json::parse(read_text(out_ / "config.json"));
  json source = json::parse(read_text(source_.path() / "config.json"));
  source["torch_dtype"] = "float16";
  source["dtype"] = "float16";
  source["quantization_config"] = json::parse(R"({
    "quant_method": "gptq", "method": "gptq", "bits": 2, "group_size": -1, "desc_act": false,
    "sym": false, "lm_head": false, "format": "gptq_v2", "checkpoint_format": "gptq_v2",
    "pack_dtype": "int32", "true_sequential": true, "damp_percent": 0.01,
    "dynamic": {
      "-:^model\\.layers\\.0\\.self_attn\\.q_proj$": {},
      "+:^model\\.layers\\.0\\.mlp\\.down_proj$":
          {"bits": 4, "group_size": 64, "sym": true, "desc_act": false}},
    "meta": {"quantizer": ["qaas:1.2.3"]}})");
  EXPECT_EQ(config, source);
  EXPECT_EQ(json::parse(read_text(out_ / "quantize_config.json")), source["quantization_config"]);
}

TEST_F(ArtifactWriterTest, AnExceptionSharedByQueryKeyAndValueAlsoNamesTheFusedProjection) {
  const GptqGrid grid = {4, 64, true};
  write({2, 32, false}, {{kQuery, grid},
                         {"model.layers.0.self_attn.k_proj", grid},
                         {"model.layers.0.self_attn.v_proj", grid}});
  const json config = json::parse(read_text(out_ / "quantize_config.json"));
  EXPECT_EQ(config.at("dynamic").at("+:^model\\.layers\\.0\\.self_attn\\.qkv_proj$").at("bits"), 4);
  expect_same_weights();
}

TEST_F(ArtifactWriterTest, SideFilesAreCopiedByteForByte) {
  write({2, 64, false});
  for (const char* name : {"tokenizer.json", "generation_config.json"}) {
    EXPECT_EQ(read_text(out_ / name), read_text(source_.path() / name)) << name;
  }
}

TEST_F(ArtifactWriterTest, ManifestBeginsWithItsVersionAndListsEveryFile) {
  write({2, 64, false});
  const std::string text = read_text(out_ / "manifest.json");
  EXPECT_EQ(text.rfind("{\n  \"format_version\": 1,", 0), 0u) << text;
  const json manifest = json::parse(text);
  EXPECT_EQ(manifest.at("spec").at("model"), "models/tiny");
  EXPECT_EQ(manifest.at("model_digest"), "abc");
  EXPECT_EQ(manifest.at("dataset_digests").at("kjv"), "def");
  EXPECT_EQ(manifest.at("forecast"), json());
  EXPECT_EQ(manifest.at("evaluation").at("measuredError"), 0.1);
  EXPECT_EQ(manifest.at("host").at("threads"), 2);
  EXPECT_EQ(manifest.at("tool").at("version"), "1.2.3");
  size_t others = 0;
  for (const auto& entry : fs::directory_iterator(out_)) {
    others += entry.path().filename() != "manifest.json";
  }
  EXPECT_EQ(manifest.at("files").size(), others);
  for (const json& file : manifest.at("files")) {
    const fs::path path = out_ / file.at("name").get<std::string>();
    EXPECT_EQ(file.at("size"), fs::file_size(path));
    EXPECT_EQ(file.at("sha256"), sha256_file(path).value());
  }
}

TEST_F(ArtifactWriterTest, SameInputGivesTheSameBytes) {
  write({3, 32, false});
  const std::string first = read_text(out_ / "manifest.json");
  random_.seed(9);
  write({3, 32, false});
  EXPECT_EQ(read_text(out_ / "manifest.json"), first);
}

TEST_F(ArtifactWriterTest, WeightsAreReadableBeforeTheManifestIsWritten) {
  ArtifactWriter w = writer({2, 64, false});
  fill(w, {2, 64, false});
  ASSERT_THAT(w.write_weights(), IsOk());
  expect_same_weights();
  QAAS_ASSERT_OK_AND_ASSIGN(const ArtifactReader reader, ArtifactReader::open(out_));
  EXPECT_FALSE(reader.manifest().has_value());
  EXPECT_THAT(reader.verify_digests(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no manifest.json")));
}

TEST_F(ArtifactWriterTest, WritingWeightsAgainRemovesTheOldManifest) {
  write({2, 64, false});
  ArtifactWriter w = writer({4, 64, false});
  fill(w, {4, 64, false});
  ASSERT_THAT(w.write_weights(), IsOk());
  EXPECT_FALSE(fs::exists(out_ / "manifest.json"));
}

TEST_F(ArtifactWriterTest, WriterRefusesWhatIsMissingUnknownTwiceOrOfAnotherShape) {
  ArtifactWriter w = writer({2, 64, false});
  EXPECT_THAT(w.write_manifest({}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("before the manifest")));
  EXPECT_THAT(w.write_weights(), StatusIs(kInvalid, HasSubstr("'model.embed_tokens.weight'")));
  EXPECT_THAT(w.add_source_tensor("model.norm.wait"),
              StatusIs(kInvalid, HasSubstr("'model.norm.wait' is not part of the model")));
  const auto weight = qaas::testing::random_weight({kDown, 128, 256}, {2, 64, false}, random_);
  EXPECT_THAT(w.add_projection("model.layers.7.mlp.down_proj", weight),
              StatusIs(kInvalid, HasSubstr("layers.7.mlp.down_proj' is not a projection")));
  EXPECT_THAT(w.add_projection(kQuery, weight),
              StatusIs(kInvalid, HasSubstr("shape [128, 256], the model has [128, 128]")));
  EXPECT_THAT(w.add_projection(kDown, weight), IsOk());
  EXPECT_THAT(w.add_projection(kDown, weight), StatusIs(kInvalid, HasSubstr("added before")));
  EXPECT_THAT(w.add_floats("model.norm.weight", std::vector<float>(127)),
              StatusIs(kInvalid, HasSubstr("127 values, the model has 128")));
}

TEST_F(ArtifactWriterTest, WriterRefusesATrainedNormThatIsNotFinite) {
  ArtifactWriter w = writer({2, 64, false});
  EXPECT_THAT(
      w.add_floats("model.norm.weight", std::vector<float>(128, std::nanf(""))),
      StatusIs(kInvalid, AllOf(HasSubstr("model.norm.weight"), HasSubstr("not finite as F16"))));
}

TEST_F(ArtifactWriterTest, MixedQueryAndKeyAreRefusedOnlyForVllm) {
  const GptqGrids mixed = {{kQuery, {8, 64, true}}};
  ArtifactWriter strict = writer({4, 64, true}, /*for_vllm=*/true);
  fill(strict, {4, 64, true}, mixed);
  EXPECT_THAT(strict.write_weights(),
              StatusIs(kInvalid, AllOf(HasSubstr("q_proj' (8 bits, group size 64, symmetric)"),
                                       HasSubstr("k_proj' (4 bits"), HasSubstr("vLLM"))));
  ArtifactWriter lenient = writer({4, 64, true});
  fill(lenient, {4, 64, true}, mixed);
  EXPECT_THAT(lenient.write_weights(), IsOk());
}

}  // namespace
}  // namespace qaas
