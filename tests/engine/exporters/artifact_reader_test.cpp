#include "workers/engine/exporters/artifact_reader.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/digest.h"
#include "storage/checkpoint/safetensors.h"
#include "tests/engine/exporters/artifact_fixture.h"

namespace qaas {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;
using qaas::testing::IsOk;
using qaas::testing::kDown;
using qaas::testing::read_text;
using qaas::testing::StatusIs;
using qaas::testing::write_text;
using ::testing::AllOf;
using ::testing::HasSubstr;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

using ArtifactReaderTest = qaas::testing::ArtifactTest;

TEST_F(ArtifactReaderTest, RefusesANewerManifest) {
  write({2, 64, false});
  edit("manifest.json", [](ordered_json& m) { m["format_version"] = 3; });
  expect_refused("format_version: found the number 3, accepted: 1 to 2");
  edit("manifest.json", [](ordered_json& m) { m.erase("format_version"); });
  expect_refused("format_version: found null");
}

TEST_F(ArtifactReaderTest, RefusesAFileThatDisagreesWithTheManifest) {
  write({2, 64, false});
  write_text(out_ / "tokenizer.json", "{}");
  expect_refused("'tokenizer.json' has 2 bytes, the manifest says");
  fs::remove(out_ / "tokenizer.json");
  expect_refused("tokenizer.json");
  edit("manifest.json", [](ordered_json& m) { m["files"][0]["name"] = "../source/config.json"; });
  expect_refused("../source/config.json");
}

TEST_F(ArtifactReaderTest, FindsAChangedByteByItsDigest) {
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

TEST_F(ArtifactReaderTest, RefusesAQuantizationConfigOfAnotherLayout) {
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
  for (const auto& change : changes) {
    write({2, 64, false});
    edit_quantization(
        [&change](ordered_json& config) { config[std::get<0>(change)] = std::get<1>(change); });
    expect_refused(std::get<2>(change));
  }
}

TEST_F(ArtifactReaderTest, RefusesASymmetricFlagThatTheZeroPointsContradict) {
  write({2, 64, false});
  edit_quantization([](ordered_json& config) { config["sym"] = true; });
  QAAS_ASSERT_OK_AND_ASSIGN(const ArtifactReader reader, ArtifactReader::open(out_));
  EXPECT_THAT(reader.projection(kDown), StatusIs(kInvalid, HasSubstr("a symmetric grid has 2")));
}

TEST_F(ArtifactReaderTest, RefusesTwoConfigsThatDiffer) {
  write({2, 64, false});
  fs::remove(out_ / "manifest.json");
  edit("quantize_config.json", [](ordered_json& config) { config["damp_percent"] = 0.02; });
  expect_refused("quantize_config.json differs from quantization_config in config.json");
}

TEST_F(ArtifactReaderTest, RefusesAMissingAnUnknownAndAMistypedTensor) {
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

TEST_F(ArtifactReaderTest, TheCheckedInArtifactOfVersionOneIsStillRead) {
  const fs::path golden = testing::source_folder() / "tests/data/artifacts/version_1";
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

TEST_F(ArtifactReaderTest, EveryTruncationOfTheWeightsIsRefused) {
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
