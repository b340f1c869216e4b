#include "workers/engine/model/decoder.h"

#include <cmath>
#include <limits>

#include "tests/engine/model/plain_llama.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tensor_matchers.h"
#include "tests/support/tiny_llama.h"
#include "workers/engine/model/language_head.h"

namespace qaas {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::is_near;
using testing::same_bits;
using testing::StatusIs;
using testing::TemporaryFolder;
using testing::TinyLlamaOptions;
using testing::write_tiny_llama;

TensorSource source_of(const ModelFolder& model) {
  return [&model](const std::string& name) -> const TensorView& { return model.tensor(name); };
}

ModelConfig config_with(const std::string& rope_scaling, int64_t head_dim = 16) {
  return parse_model_config(testing::tiny_llama_config({.hidden = 4 * head_dim,
                                                        .head_dim = head_dim,
                                                        .max_positions = 131072,
                                                        .rope_scaling = rope_scaling}))
      .value();
}

/// Checks the table at some positions against frequency(i), computed in double.
void expect_frequencies(const ModelConfig& config,
                        const std::function<double(double frequency)>& scaled) {
  constexpr int64_t kLength = 40;
  const RopeTable table = make_rope_table(config, kLength);
  const int64_t half = config.head_dim / 2;
  ASSERT_EQ(table.cosine.sizes(), (std::vector<int64_t>{kLength, half}));
  ASSERT_EQ(table.sine.sizes(), (std::vector<int64_t>{kLength, half}));
  for (int64_t position = 0; position < kLength; ++position) {
    for (int64_t i = 0; i < half; ++i) {
      const double plain = std::pow(10000.0, -2.0 * double(i) / double(config.head_dim));
      const double angle = static_cast<double>(position) * scaled(plain);
      // A float32 angle of up to 40 is good to 4e-6.
      EXPECT_NEAR(table.cosine[position][i].item<double>(), std::cos(angle), 1e-5);
      EXPECT_NEAR(table.sine[position][i].item<double>(), std::sin(angle), 1e-5);
    }
  }
}

TEST(RopeTable, PlainFrequenciesFallFromOneByThePowerOfTheta) {
  expect_frequencies(config_with(""), [](double f) { return f; });
  expect_frequencies(config_with("", 48), [](double f) { return f; });
}

TEST(RopeTable, LinearScalingDividesEveryFrequency) {
  expect_frequencies(config_with(R"({"rope_type": "linear", "factor": 4.0})"),
                     [](double f) { return f / 4; });
}

TEST(RopeTable, Llama3ScalingStretchesLongWavesKeepsShortOnesAndBlendsBetween) {
  int kept = 0, blended = 0, stretched = 0;
  expect_frequencies(config_with(R"({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                      "high_freq_factor": 4.0, "original_max_position_embeddings": 512})",
                                 64),
                     [&](double f) {
                       const double wave = 2 * std::numbers::pi / f;
                       if (wave < 512.0 / 4) return ++kept, f;
                       if (wave > 512.0 / 1) return ++stretched, f / 8;
                       const double t = (512.0 / wave - 1) / (4 - 1);
                       return ++blended, (1 - t) * f / 8 + t * f;
                     });
  EXPECT_GT(kept, 0);
  EXPECT_GT(blended, 0);
  EXPECT_GT(stretched, 0);
}

TEST(RopeTable, AShorterTableIsTheStartOfALongerOne) {
  const ModelConfig config = config_with("");
  EXPECT_TRUE(
      same_bits(make_rope_table(config, 7).sine, make_rope_table(config, 30).sine.slice(0, 0, 7)));
}

TEST(Embed, IntoAGivenStreamGivesTheSameBits) {
  const TemporaryFolder folder;
  for (const Dtype dtype : {Dtype::kF32, Dtype::kF16}) {
    const ModelFolder model = write_tiny_llama(folder / dtype_name(dtype), {.dtype = dtype});
    const ModelEnds ends = load_ends(model.config(), source_of(model));
    const torch::Tensor ids = torch::randint(model.config().vocab_size, {3, 11}, torch::kInt64);
    const torch::Tensor stream = torch::empty({3, 11, model.config().hidden_size});
    embed_into(ends, ids, stream);
    EXPECT_TRUE(same_bits(stream, embed(ends, ids)));
  }
}

/// Next-token log-probabilities of the engine's model, [windows, seq, vocab].
torch::Tensor engine_log_probabilities(const ModelFolder& model, const torch::Tensor& ids) {
  const torch::NoGradGuard no_grad;
  const ModelEnds ends = load_ends(model.config(), source_of(model));
  torch::Tensor stream = embed(ends, ids);
  const RopeTable rope = make_rope_table(model.config(), ids.size(1));
  for (int64_t i = 0; i < model.config().num_hidden_layers; ++i) {
    DecoderBlock block = load_block(model.config(), source_of(model), i).value();
    stream = block->forward(stream, rope, torch::kFloat32);
  }
  const torch::Tensor hidden = final_hidden(ends, stream.view({-1, stream.size(2)}));
  torch::Tensor out = torch::empty({hidden.size(0), model.config().vocab_size});
  LanguageHead(ends, torch::kFloat32)
      .for_each_chunk(hidden, [&](int64_t first, const torch::Tensor& log_p) {
        out.narrow(0, first, log_p.size(0)).copy_(log_p);
      });
  return out.view({ids.size(0), ids.size(1), -1});
}

class WholeModel : public ::testing::TestWithParam<TinyLlamaOptions> {};

INSTANTIATE_TEST_SUITE_P(
    Models, WholeModel,
    ::testing::Values(TinyLlamaOptions{}, TinyLlamaOptions{.tied = true, .dtype = Dtype::kF16},
                      TinyLlamaOptions{.blocks = 3, .kv_heads = 1, .dtype = Dtype::kBf16},
                      TinyLlamaOptions{.hidden = 96, .heads = 2, .kv_heads = 2, .head_dim = 48},
                      TinyLlamaOptions{.heads = 6, .kv_heads = 3, .head_dim = 32, .seed = 9}),
    [](const auto& info) {
      const TinyLlamaOptions& o = info.param;
      return dtype_name(o.dtype) + "_hidden" + std::to_string(o.hidden) + "_heads" +
             std::to_string(o.heads) + "of" + std::to_string(o.kv_heads) + "x" +
             std::to_string(o.head_dim) + (o.tied ? "_tied" : "");
    });

TEST_P(WholeModel, ForwardEqualsAPlainOneInDoublePrecision) {
  const TemporaryFolder folder;
  const ModelFolder model = write_tiny_llama(folder.path(), GetParam());
  torch::manual_seed(5);
  const torch::Tensor ids = torch::randint(model.config().vocab_size, {2, 23}, torch::kInt64);
  const torch::Tensor actual = engine_log_probabilities(model, ids);
  const TensorSource source = source_of(model);
  const testing::PlainLlama plain(model.config(), source);
  for (int64_t window = 0; window < 2; ++window) {
    const int64_t* first = ids[window].data_ptr<int64_t>();
    EXPECT_TRUE(is_near(actual[window],
                        plain.log_probabilities(std::vector<int64_t>(first, first + 23)), 1e-5));
  }
}

TEST(LoadBlock, RefusesAValueThatIsNotFiniteByTheTensorsName) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const std::string& name : {std::string("model.layers.1.mlp.up_proj.weight"),
                                    std::string("model.layers.1.input_layernorm.weight")}) {
      const TemporaryFolder folder;
      const ModelFolder model = write_tiny_llama(
          folder.path(), {}, [&](const std::string& tensor, std::vector<float>& values) {
            if (tensor == name) values[5] = bad;
          });
      EXPECT_THAT(load_block(model.config(), source_of(model), 0), testing::IsOk());
      EXPECT_THAT(load_block(model.config(), source_of(model), 1),
                  StatusIs(absl::StatusCode::kInvalidArgument,
                           AllOf(HasSubstr("'" + name + "'"), HasSubstr("NaN or infinite"))));
    }
  }
}

TEST(LoadBlock, RegisteredNamesAreThoseOfTheCheckpoint) {
  const TemporaryFolder folder;
  const ModelFolder model = write_tiny_llama(folder.path());
  const DecoderBlock block = load_block(model.config(), source_of(model), 1).value();
  size_t expected = 0;
  const auto parameters = block->named_parameters();
  for (const ExpectedTensor& tensor : expected_tensors(model.config())) {
    if (!tensor.name.starts_with("model.layers.1.")) continue;
    ++expected;
    const torch::Tensor* found = parameters.find(tensor.name.substr(block_prefix(1).size()));
    ASSERT_NE(found, nullptr) << tensor.name;
    EXPECT_TRUE(same_bits(*found, to_float_tensor(model.tensor(tensor.name)))) << tensor.name;
  }
  EXPECT_EQ(parameters.size(), expected);
}

TEST(LoadEnds, ATiedHeadIsTheEmbeddingItself) {
  const TemporaryFolder folder;
  const ModelFolder tied = write_tiny_llama(folder / "tied", {.tied = true});
  const ModelEnds ends = load_ends(tied.config(), source_of(tied));
  EXPECT_TRUE(ends.head.is_same(ends.embedding));
  const ModelFolder untied = write_tiny_llama(folder / "untied");
  EXPECT_FALSE(torch::equal(load_ends(untied.config(), source_of(untied)).head,
                            load_ends(untied.config(), source_of(untied)).embedding));
}

}  // namespace
}  // namespace qaas
