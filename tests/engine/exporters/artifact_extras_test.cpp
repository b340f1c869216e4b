/// What an artifact may hold beyond the decoder's projections: a quantized head, tensors that are
/// not the source's, and how inputs are quantized.
#include <filesystem>
#include <string>
#include <vector>

#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/engine/exporters/artifact_fixture.h"
#include "workers/engine/exporters/float16.h"

namespace qaas {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using qaas::testing::IsOk;
using qaas::testing::kDown;
using qaas::testing::kQuery;
using qaas::testing::read_text;
using qaas::testing::StatusIs;
using ::testing::HasSubstr;

constexpr GptqGrid kBase = {2, 64, false};
constexpr char kActivations[] = "activation_quantization.json";

class ArtifactExtras : public qaas::testing::ArtifactTest {
 protected:
  ArtifactWriter untied_writer() {
    return ArtifactWriter::create(source_, out_,
                                  {.base = kBase, .untie_head = true, .tool_version = "1"})
        .value();
  }
  void write_with_head(const GptqGrid& grid) {
    ArtifactWriter w = untied_writer();
    fill(w, kBase);
    const ModelConfig& config = source_.config();
    weights_["lm_head"] = qaas::testing::random_weight(
        {"lm_head", config.vocab_size, config.hidden_size}, grid, random_);
    ASSERT_THAT(w.add_projection("lm_head", weights_["lm_head"]), IsOk());
    ASSERT_THAT(w.write_weights(), IsOk());
    ASSERT_THAT(w.write_manifest({}), IsOk());
  }
  void write_with_activations(const ActivationQuantizers& quantizers) {
    ArtifactWriter w = writer(kBase);
    fill(w, kBase);
    w.set_activations(quantizers);
    ASSERT_THAT(w.write_weights(), IsOk());
    ASSERT_THAT(w.write_manifest({}), IsOk());
  }
};

TEST_F(ArtifactExtras, QuantizedHeadOfATiedModelIsReadBackUntied) {
  ASSERT_TRUE(source_.config().tie_word_embeddings);
  write_with_head({8, 128, true});
  QAAS_ASSERT_OK_AND_ASSIGN(const ArtifactReader reader, ArtifactReader::open(out_));
  EXPECT_FALSE(reader.config().tie_word_embeddings);
  EXPECT_EQ(reader.grids().at("lm_head"), (GptqGrid{8, 128, true}));
  expect_same_weights();
  expect_python_agrees();
  const json config = json::parse(read_text(out_ / "quantize_config.json"));
  EXPECT_EQ(config.at("lm_head"), true);
  EXPECT_EQ(config.at("dynamic").at("+:^lm_head$").at("bits"), 8);
}

TEST_F(ArtifactExtras, HeadOnTheBaseGridIsNoException) {
  write_with_head(kBase);
  const json config = json::parse(read_text(out_ / "quantize_config.json"));
  EXPECT_EQ(config.at("lm_head"), true);
  EXPECT_FALSE(config.contains("dynamic"));
  expect_same_weights();
}

TEST_F(ArtifactExtras, AQuantizedHeadThatTheConfigDoesNotMentionIsRefused) {
  write_with_head({8, 128, true});
  edit_quantization([](ordered_json& q) { q["lm_head"] = false; });
  EXPECT_THAT(ArtifactReader::open(out_), StatusIs(absl::StatusCode::kInvalidArgument,
                                                   HasSubstr("quantization_config.dynamic")));
}

TEST_F(ArtifactExtras, ATiedHeadIsNoProjection) {
  ArtifactWriter w = writer(kBase);
  const ModelConfig& config = source_.config();
  const QuantizedWeight head = qaas::testing::random_weight(
      {"lm_head", config.vocab_size, config.hidden_size}, kBase, random_);
  EXPECT_THAT(w.add_projection("lm_head", head),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'lm_head' is not a")));
}

TEST_F(ArtifactExtras, AnUntiedHeadInFullPrecisionIsTheEmbeddingOrWhatIsGiven) {
  const TensorView& embedding = source_.tensor("model.embed_tokens.weight");
  const std::string original(reinterpret_cast<const char*>(embedding.bytes.data()),
                             embedding.bytes.size());
  const auto changed =
      *encode_floats(std::vector<float>(embedding.bytes.size() / 2, 0.25f), Dtype::kF16);
  for (const bool given : {false, true}) {
    ArtifactWriter w = untied_writer();
    fill(w, kBase);
    ASSERT_THAT(given ? w.add_tensor("lm_head.weight", Dtype::kF16, changed)
                      : w.add_source_tensor("lm_head.weight"),
                IsOk());
    ASSERT_THAT(w.write_weights(), IsOk());
    QAAS_ASSERT_OK_AND_ASSIGN(const ArtifactReader reader, ArtifactReader::open(out_));
    const TensorView& head = reader.tensor("lm_head.weight");
    const std::string found(reinterpret_cast<const char*>(head.bytes.data()), head.bytes.size());
    EXPECT_EQ(found == original, !given);
    EXPECT_EQ(head.dtype, given ? Dtype::kF16 : Dtype::kBf16);
  }
}

TEST_F(ArtifactExtras, ATensorOfAnotherSizeIsRefusedByName) {
  ArtifactWriter w = untied_writer();
  const std::vector<std::byte> bytes(10);
  EXPECT_THAT(w.add_tensor("lm_head.weight", Dtype::kF16, bytes),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("tensor 'lm_head.weight': 5 values, the model has")));
}

TEST_F(ArtifactExtras, ActivationQuantizersAreReadBackExactly) {
  const ActivationQuantizers quantizers = {{kDown, {{.bits = 8, .group_size = 64}, 1}},
                                           {kQuery, {{.bits = 4}, 0.123456789f}}};
  write_with_activations(quantizers);
  QAAS_ASSERT_OK_AND_ASSIGN(const ArtifactReader reader, ArtifactReader::open(out_));
  EXPECT_EQ(reader.activations(), quantizers);
  EXPECT_EQ(reader.manifest()->at("format_version"), 2);
  EXPECT_THAT(reader.verify_digests(), IsOk());
}

TEST_F(ArtifactExtras, WithoutQuantizedInputsThereIsNoSuchFile) {
  write_with_activations({{kDown, {}}});
  write(kBase);
  EXPECT_FALSE(std::filesystem::exists(out_ / kActivations));
  QAAS_ASSERT_OK_AND_ASSIGN(const ArtifactReader reader, ArtifactReader::open(out_));
  EXPECT_TRUE(reader.activations().empty());
  EXPECT_EQ(reader.manifest()->at("format_version"), 1);
}

TEST_F(ArtifactExtras, AnActivationFileThatTheManifestDoesNotListIsRefused) {
  write(kBase);
  qaas::testing::write_text(out_ / kActivations, R"({"projections": {}})");
  expect_refused("'activation_quantization.json' is not listed");
}

TEST_F(ArtifactExtras, ActivationQuantizersThatCannotBeAreRefusedByField) {
  const auto refused = [&](const std::string& entry, const std::string& why) {
    std::filesystem::remove(out_ / "manifest.json");
    qaas::testing::write_text(out_ / kActivations, absl::StrCat(R"({"projections": )", entry, "}"));
    expect_refused(why.c_str());
  };
  const auto down = [](const std::string& entry) {
    return absl::StrCat("{\"", kDown, "\": {", entry, "}}");
  };
  write_with_activations({{kDown, {}}});
  refused("[]", "projections: found");
  refused(R"({"lm_head": {"bits": 8, "group_size": -1, "clip": 1}})",
          "'lm_head' is not a projection of the model");
  refused(down(R"("bits": 5, "group_size": -1, "clip": 1)"), ".bits: found the number 5");
  refused(down(R"("bits": 8, "group_size": 48, "clip": 1)"), ".group_size: found the number 48");
  refused(down(R"("bits": 8, "group_size": 0, "clip": 1)"), ".group_size: found the number 0");
  refused(down(R"("bits": 8, "group_size": -1, "clip": 1.5)"), ".clip: found the number 1.5");
  refused(down(R"("bits": 8, "group_size": -1)"), ".clip: found null");
  refused(down(R"("bits": 8, "group_size": -1, "clip": 1, "zero": 0)"), "alone");
}

}  // namespace
}  // namespace qaas
