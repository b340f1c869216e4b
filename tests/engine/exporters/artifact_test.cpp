#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/digest.h"
#include "tests/engine/exporters/tiny_source.h"
#include "tests/support/status_matchers.h"
#include "workers/engine/exporters/artifact_reader.h"
#include "workers/engine/exporters/artifact_writer.h"
#include "workers/engine/quant/bit_packing.h"

/// A whole artifact folder, written and read back; the independent judge of the layout is
/// unpack_gptq.py.
namespace qaas {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;
using qaas::testing::IsOk;
using qaas::testing::read_text;
using qaas::testing::StatusIs;
using qaas::testing::write_text;
using ::testing::AllOf;
using ::testing::HasSubstr;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr char kDown[] = "model.layers.0.mlp.down_proj";
constexpr char kQuery[] = "model.layers.0.self_attn.q_proj";

class Artifact : public ::testing::Test {
 protected:
  Artifact()
      : source_(qaas::testing::write_tiny_source(folder_.path() / "source")),
        out_(folder_.path() / "artifact") {}

  ArtifactWriter writer(const GptqGrid& base, bool for_vllm = false) {
    auto writer = ArtifactWriter::create(
        source_, out_, {.base = base, .for_vllm = for_vllm, .tool_version = "1.2.3"});
    EXPECT_THAT(writer, IsOk());
    return *std::move(writer);
  }

  /// Adds every tensor: random weights on `base`, but for `exceptions`; norms as floats.
  void fill(ArtifactWriter& writer, const GptqGrid& base, const GptqGrids& exceptions = {}) {
    for (const Projection2d& projection : decoder_projections(source_.config())) {
      const auto exception = exceptions.find(projection.name);
      const GptqGrid grid = exception == exceptions.end() ? base : exception->second;
      if (grid.bits == 0) {
        ASSERT_THAT(writer.add_source_tensor(projection.name + ".weight"), IsOk());
        continue;
      }
      const QuantizedWeight weight = qaas::testing::random_weight(projection, grid, random_);
      ASSERT_THAT(writer.add_projection(projection.name, weight), IsOk());
      weights_[projection.name] = weight;
    }
    for (const ExpectedTensor& tensor : expected_tensors(source_.config())) {
      if (tensor.name == "model.norm.weight") {
        ASSERT_THAT(writer.add_floats(tensor.name, std::vector<float>(128, 1.5f)), IsOk());
      } else if (tensor.name.find("_proj") == std::string::npos) {
        ASSERT_THAT(writer.add_source_tensor(tensor.name), IsOk());
      }
    }
  }

  /// A finished folder on `base`.
  void write(const GptqGrid& base, const GptqGrids& exceptions = {}) {
    ArtifactWriter w = writer(base);
    fill(w, base, exceptions);
    ASSERT_THAT(w.write_weights(), IsOk());
    ASSERT_THAT(w.write_manifest({.spec = {{"model", "models/tiny"}},
                                  .model_digest = "abc",
                                  .dataset_digests = {{"kjv", "def"}},
                                  .evaluation = {{"measuredError", 0.1}},
                                  .host = {{"threads", 2}}}),
                IsOk());
  }

  void expect_same_weights() {
    QAAS_ASSERT_OK_AND_ASSIGN(const ArtifactReader reader, ArtifactReader::open(out_));
    for (const auto& [name, weight] : weights_) {
      QAAS_ASSERT_OK_AND_ASSIGN(const QuantizedWeight back, reader.projection(name));
      EXPECT_EQ(back.packed, weight.packed) << name;
      EXPECT_EQ(back.zero_points, weight.zero_points) << name;
      EXPECT_EQ(back.scales, weight.scales) << name;
      EXPECT_EQ(back.bits, weight.bits) << name;
      EXPECT_EQ(back.group_size, weight.group_size) << name;
      EXPECT_EQ(back.symmetric, weight.symmetric) << name;
    }
  }

  /// Runs the Python reader over the folder and compares every dequantized value bit for bit.
  void expect_python_agrees() {
    const fs::path script = fs::path(__FILE__).parent_path() / "unpack_gptq.py";
    const fs::path values = folder_.path() / "weights.bin";
    const std::string command = "/usr/bin/python3 '" + script.string() + "' '" + out_.string() +
                                "' > '" + values.string() + "'";
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
    const std::string raw = read_text(values);
    size_t at = 0;
    for (const auto& [name, weight] : weights_) {
      const auto codes = unpack_rows(weight.packed, weight.rows, weight.cols, weight.bits);
      for (int64_t i = 0; i < weight.rows * weight.cols; ++i) {
        const int64_t g = i / weight.group_size;
        float value;
        ASSERT_LE(at + sizeof value, raw.size());
        std::memcpy(&value, raw.data() + at, sizeof value);
        at += sizeof value;
        ASSERT_EQ(value, weight.scales[g] * static_cast<float>(codes[i] - weight.zero_points[g]))
            << name << " " << i;
      }
    }
    EXPECT_EQ(at, raw.size());
  }

  /// Edits a JSON file of the finished folder; the manifest is removed, as its sizes would differ.
  void edit(const char* name, const std::function<void(ordered_json&)>& change) {
    ordered_json document = ordered_json::parse(read_text(out_ / name));
    change(document);
    write_text(out_ / name, document.dump());
  }
  void edit_quantization(const std::function<void(ordered_json&)>& change) {
    fs::remove(out_ / "manifest.json");
    edit("quantize_config.json", change);
    edit("config.json", [&](ordered_json& config) { change(config["quantization_config"]); });
  }
  void expect_refused(const char* why) {
    EXPECT_THAT(ArtifactReader::open(out_), StatusIs(kInvalid, HasSubstr(why)));
  }

  qaas::testing::TemporaryFolder folder_;
  ModelFolder source_;
  fs::path out_;
  std::mt19937 random_{9};
  std::map<std::string, QuantizedWeight> weights_;
};

class EveryArtifactGrid : public Artifact, public ::testing::WithParamInterface<GptqGrid> {};

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
                           return "b" + std::to_string(g.bits) + "_g" +
                                  (g.group_size < 0 ? "row" : std::to_string(g.group_size)) +
                                  (g.symmetric ? "_sym" : "_asym");
                         });

TEST_P(EveryArtifactGrid, ReadsBackWhatWasWritten) {
  write(GetParam());
  expect_same_weights();
}

TEST_F(Artifact, AnIndependentReaderSeesTheSameValues) {
  for (int bits : {2, 3, 4, 8}) {
    write({bits, bits == 3 ? -1 : 32, bits == 8});
    expect_python_agrees();
  }
}

TEST_F(Artifact, ExceptionsAreReadBackByUsAndByAnIndependentReader) {
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

TEST_F(Artifact, TensorsInFloatingPointKeepTheSourcesType) {
  write({2, 64, false});
  QAAS_ASSERT_OK_AND_ASSIGN(const ArtifactReader reader, ArtifactReader::open(out_));
  const TensorView& norm = reader.tensor("model.norm.weight");
  EXPECT_EQ(norm.dtype, Dtype::kBf16);
  EXPECT_EQ(norm.bytes[0], std::byte{0xc0});  // 1.5 in bf16 is 3fc0
  EXPECT_EQ(norm.bytes[1], std::byte{0x3f});
  EXPECT_EQ(reader.tensor("model.embed_tokens.weight").bytes.size(), 64u * 128 * 2);
  EXPECT_EQ(reader.config().hidden_size, 128);
  EXPECT_EQ(reader.weight_bytes(), static_cast<int64_t>(fs::file_size(out_ / "model.safetensors")));
}

TEST_F(Artifact, ConfigKeepsTheSourcesFieldsAndGainsTheQuantization) {
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

TEST_F(Artifact, AnExceptionSharedByQueryKeyAndValueAlsoNamesTheFusedProjection) {
  const GptqGrid grid = {4, 64, true};
  write({2, 32, false}, {{kQuery, grid},
                         {"model.layers.0.self_attn.k_proj", grid},
                         {"model.layers.0.self_attn.v_proj", grid}});
  const json config = json::parse(read_text(out_ / "quantize_config.json"));
  EXPECT_EQ(config.at("dynamic").at("+:^model\\.layers\\.0\\.self_attn\\.qkv_proj$").at("bits"), 4);
  expect_same_weights();
}

TEST_F(Artifact, SideFilesAreCopiedByteForByte) {
  write({2, 64, false});
  for (const char* name : {"tokenizer.json", "generation_config.json"}) {
    EXPECT_EQ(read_text(out_ / name), read_text(source_.path() / name)) << name;
  }
}

TEST_F(Artifact, ManifestBeginsWithItsVersionAndListsEveryFile) {
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

TEST_F(Artifact, SameInputGivesTheSameBytes) {
  write({3, 32, false});
  const std::string first = read_text(out_ / "manifest.json");
  random_.seed(9);
  write({3, 32, false});
  EXPECT_EQ(read_text(out_ / "manifest.json"), first);
}

TEST_F(Artifact, WeightsAreReadableBeforeTheManifestIsWritten) {
  ArtifactWriter w = writer({2, 64, false});
  fill(w, {2, 64, false});
  ASSERT_THAT(w.write_weights(), IsOk());
  expect_same_weights();
  QAAS_ASSERT_OK_AND_ASSIGN(const ArtifactReader reader, ArtifactReader::open(out_));
  EXPECT_FALSE(reader.manifest().has_value());
  EXPECT_THAT(reader.verify_digests(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no manifest.json")));
}

TEST_F(Artifact, WritingWeightsAgainRemovesTheOldManifest) {
  write({2, 64, false});
  ArtifactWriter w = writer({4, 64, false});
  fill(w, {4, 64, false});
  ASSERT_THAT(w.write_weights(), IsOk());
  EXPECT_FALSE(fs::exists(out_ / "manifest.json"));
}

TEST_F(Artifact, WriterRefusesWhatIsMissingUnknownTwiceOrOfAnotherShape) {
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

TEST_F(Artifact, WriterRefusesATrainedNormThatIsNotFinite) {
  ArtifactWriter w = writer({2, 64, false});
  EXPECT_THAT(
      w.add_floats("model.norm.weight", std::vector<float>(128, std::nanf(""))),
      StatusIs(kInvalid, AllOf(HasSubstr("model.norm.weight"), HasSubstr("not finite as BF16"))));
}

TEST_F(Artifact, MixedQueryAndKeyAreRefusedOnlyForVllm) {
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

TEST_F(Artifact, ReaderRefusesANewerManifest) {
  write({2, 64, false});
  edit("manifest.json", [](ordered_json& m) { m["format_version"] = 2; });
  expect_refused("format_version: found the number 2, accepted: 1 to 1");
  edit("manifest.json", [](ordered_json& m) { m.erase("format_version"); });
  expect_refused("format_version: found null");
}

TEST_F(Artifact, ReaderRefusesAFileThatDisagreesWithTheManifest) {
  write({2, 64, false});
  write_text(out_ / "tokenizer.json", "{}");
  expect_refused("'tokenizer.json' has 2 bytes, the manifest says");
  fs::remove(out_ / "tokenizer.json");
  expect_refused("tokenizer.json");
  edit("manifest.json", [](ordered_json& m) { m["files"][0]["name"] = "../source/config.json"; });
  expect_refused("../source/config.json");
}

TEST_F(Artifact, ReaderFindsAChangedByteByItsDigest) {
  write({2, 64, false});
  {
    QAAS_ASSERT_OK_AND_ASSIGN(const ArtifactReader reader, ArtifactReader::open(out_));
    EXPECT_THAT(reader.verify_digests(), IsOk());
  }
  std::string text = read_text(out_ / "tokenizer.json");
  text[3] ^= 1;
  write_text(out_ / "tokenizer.json", text);
  QAAS_ASSERT_OK_AND_ASSIGN(const ArtifactReader reader, ArtifactReader::open(out_));
  EXPECT_THAT(reader.verify_digests(),
              StatusIs(kInvalid, AllOf(HasSubstr("tokenizer.json"), HasSubstr("SHA-256"))));
}

TEST_F(Artifact, ReaderRefusesAQuantizationConfigOfAnotherLayout) {
  const std::vector<std::tuple<const char*, json, const char*>> changes = {
      {"quant_method", "awq", "quantization_config.quant_method: found"},
      {"format", "gptq", "quantization_config.format: found"},
      {"checkpoint_format", "gptq", "quantization_config.checkpoint_format: found"},
      {"bits", 5, "quantization_config.bits: found the number 5"},
      {"bits", "2", "quantization_config.bits: found"},
      {"group_size", 0, "quantization_config.group_size: found the number 0"},
      {"group_size", 48, "group size 48 does not divide the 128 inputs of"},
      {"group_size", 32, "model.layers.0.self_attn.q_proj.qzeros': shape [2, 8], expected [4, 8]"},
      {"sym", nullptr, "quantization_config.sym: found null"},
      {"desc_act", true, "quantization_config.desc_act: found"},
      {"lm_head", true, "quantization_config.lm_head: found"},
      {"pack_dtype", "int64", "quantization_config.pack_dtype: found"},
      {"static_groups", true, "quantization_config.static_groups: found"},
      {"dynamic", {{"+:^.*$", {{"bits", 8}}}}, "quantization_config.dynamic"},
      {"dynamic", json::array(), "quantization_config.dynamic"},
  };
  for (const auto& [key, value, why] : changes) {
    write({2, 64, false});
    edit_quantization([&](ordered_json& config) { config[key] = value; });
    expect_refused(why);
  }
}

TEST_F(Artifact, ReaderRefusesASymmetricFlagThatTheZeroPointsContradict) {
  write({2, 64, false});
  edit_quantization([](ordered_json& config) { config["sym"] = true; });
  QAAS_ASSERT_OK_AND_ASSIGN(const ArtifactReader reader, ArtifactReader::open(out_));
  EXPECT_THAT(reader.projection(kDown), StatusIs(kInvalid, HasSubstr("a symmetric grid has 2")));
}

TEST_F(Artifact, ReaderRefusesTwoConfigsThatDiffer) {
  write({2, 64, false});
  fs::remove(out_ / "manifest.json");
  edit("quantize_config.json", [](ordered_json& config) { config["damp_percent"] = 0.02; });
  expect_refused("quantize_config.json differs from quantization_config in config.json");
}

TEST_F(Artifact, ReaderRefusesAMissingAnUnknownAndAMistypedTensor) {
  write({2, 64, false});
  fs::remove(out_ / "manifest.json");
  const auto rewrite = [this](const std::function<void(std::vector<TensorToWrite>&)>& change) {
    QAAS_ASSERT_OK_AND_ASSIGN(const SafetensorsFile file,
                              SafetensorsFile::open(out_ / "model.safetensors"));
    std::vector<TensorToWrite> tensors;
    for (const auto& [name, view] : file.tensors()) {
      tensors.push_back({name, view.dtype, view.shape, view.bytes});
    }
    change(tensors);
    ASSERT_THAT(write_safetensors(out_ / "model.safetensors", tensors), IsOk());
  };
  const std::string scales = std::string(kDown) + ".scales";
  const auto find = [&scales](std::vector<TensorToWrite>& tensors) {
    return std::find_if(tensors.begin(), tensors.end(),
                        [&scales](const TensorToWrite& t) { return t.name == scales; });
  };
  rewrite([&](auto& tensors) { find(tensors)->dtype = Dtype::kBf16; });
  expect_refused("down_proj.scales': dtype BF16, expected F16");
  rewrite([&](auto& tensors) { find(tensors)->name += "2"; });
  expect_refused("down_proj.scales' is missing");
  rewrite([&](auto& tensors) {
    tensors.push_back(tensors.front());
    tensors.back().name = "extra";
    const auto renamed = std::find_if(tensors.begin(), tensors.end(),
                                      [&](const auto& t) { return t.name == scales + "2"; });
    renamed->name = scales;
    renamed->dtype = Dtype::kF16;
  });
  expect_refused("tensor 'extra' is not part of the model");
}

TEST_F(Artifact, TheCheckedInArtifactOfVersionOneIsStillRead) {
  const fs::path golden = fs::path(__FILE__).parent_path() / "../../data/artifacts/version_1";
  QAAS_ASSERT_OK_AND_ASSIGN(const ArtifactReader reader, ArtifactReader::open(golden));
  EXPECT_THAT(reader.verify_digests(), IsOk());
  std::string values;
  for (const auto& [name, grid] : reader.grids()) {
    if (grid.bits == 0) continue;
    QAAS_ASSERT_OK_AND_ASSIGN(const QuantizedWeight weight, reader.projection(name));
    const auto codes = unpack_rows(weight.packed, weight.rows, weight.cols, weight.bits);
    for (int64_t i = 0; i < weight.rows * weight.cols; ++i) {
      const int64_t g = i / weight.group_size;
      const float value = weight.scales[g] * static_cast<float>(codes[i] - weight.zero_points[g]);
      values.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
  }
  write_text(folder_.path() / "values", values);
  // What unpack_gptq.py makes of the folder: see its README.
  EXPECT_EQ(sha256_file(folder_.path() / "values").value(),
            "0c1c1324131691b7801eb3ec49bc81f057ab304e66031c8cd527f2628f4396a3");
}

TEST_F(Artifact, EveryTruncationOfTheWeightsIsRefused) {
  write({2, 64, false});
  fs::remove(out_ / "manifest.json");
  const auto size = fs::file_size(out_ / "model.safetensors");
  for (const auto kept : {size - 1, size / 2, size_t{100}, size_t{8}, size_t{0}}) {
    fs::resize_file(out_ / "model.safetensors", kept);
    EXPECT_THAT(ArtifactReader::open(out_), StatusIs(kInvalid, HasSubstr("model.safetensors")));
  }
}

}  // namespace
}  // namespace qaas
