#pragma once

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/engine/exporters/tiny_source.h"
#include "tests/support/status_matchers.h"
#include "workers/engine/exporters/artifact_reader.h"
#include "workers/engine/exporters/artifact_writer.h"
#include "workers/engine/quant/bit_packing.h"

namespace qaas::testing {

inline constexpr char kDown[] = "model.layers.0.mlp.down_proj";
inline constexpr char kQuery[] = "model.layers.0.self_attn.q_proj";

/// A tiny source model, an artifact folder, and what was put into it.
class ArtifactTest : public ::testing::Test {
 protected:
  ArtifactTest()
      : source_(write_tiny_source(folder_.path() / "source")), out_(folder_.path() / "artifact") {}

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
      const QuantizedWeight weight = random_weight(projection, grid, random_);
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
    const std::filesystem::path script =
        testing::source_folder() / "tests/engine/exporters/unpack_gptq.py";
    const std::filesystem::path values = folder_.path() / "weights.bin";
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

  /// Edits a JSON file of the finished folder.
  void edit(const char* name, const std::function<void(nlohmann::ordered_json&)>& change) {
    nlohmann::ordered_json document = nlohmann::ordered_json::parse(read_text(out_ / name));
    change(document);
    write_text(out_ / name, document.dump());
  }
  /// Edits both copies of the quantization config; the manifest goes, as its sizes would differ.
  void edit_quantization(const std::function<void(nlohmann::ordered_json&)>& change) {
    std::filesystem::remove(out_ / "manifest.json");
    edit("quantize_config.json", change);
    edit("config.json",
         [&](nlohmann::ordered_json& config) { change(config["quantization_config"]); });
  }
  void expect_refused(const char* why) {
    EXPECT_THAT(ArtifactReader::open(out_),
                StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr(why)));
  }

  TemporaryFolder folder_;
  ModelFolder source_;
  std::filesystem::path out_;
  std::mt19937 random_{9};
  std::map<std::string, QuantizedWeight> weights_;
};

}  // namespace qaas::testing
