#include "workers/engine/model/text_generation.h"

#include <set>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tensor_matchers.h"
#include "tests/support/tiny_llama.h"
#include "workers/engine/model/key_value_cache.h"
#include "workers/engine/model/language_head.h"

namespace qaas {
namespace {

using ::testing::HasSubstr;
using testing::is_near;
using testing::IsOk;
using testing::StatusIs;
using testing::TemporaryFolder;
using testing::TinyLlamaOptions;
using testing::write_tiny_llama;

/// A tiny model with all its blocks.
struct Loaded {
  explicit Loaded(const TinyLlamaOptions& options = {})
      : model(write_tiny_llama(folder.path(), options)) {
    const TensorSource source = [this](const std::string& name) -> const TensorView& {
      return model.tensor(name);
    };
    ends = load_ends(config(), source);
    for (int64_t i = 0; i < config().num_hidden_layers; ++i) {
      blocks.push_back(load_block(config(), source, i).value());
    }
  }
  const ModelConfig& config() const { return model.config(); }

  torch::Tensor generate(const GenerationOptions& options) {
    const auto text = generate_text(config(), ends, blocks, options, [](double) {}, {});
    EXPECT_THAT(text, IsOk());
    return text.ok() ? *text : torch::Tensor();
  }

  /// Log-probabilities of the next token by the whole sequence's forward pass,
  /// [sequences, seq, vocab].
  torch::Tensor log_probabilities(const torch::Tensor& ids) {
    const torch::NoGradGuard no_grad;
    torch::Tensor stream = embed(ends, ids);
    const RopeTable rope = make_rope_table(config(), ids.size(1));
    for (DecoderBlock& block : blocks) stream = block->forward(stream, rope, torch::kFloat32);
    const torch::Tensor hidden = final_hidden(ends, stream.view({-1, stream.size(2)}));
    torch::Tensor out = torch::empty({hidden.size(0), config().vocab_size});
    LanguageHead(ends, torch::kFloat32)
        .for_each_chunk(hidden, [&](int64_t first, const torch::Tensor& log_p) {
          out.narrow(0, first, log_p.size(0)).copy_(log_p);
        });
    return out.view({ids.size(0), ids.size(1), -1});
  }

  TemporaryFolder folder;
  ModelFolder model;
  ModelEnds ends;
  std::vector<DecoderBlock> blocks;
};

class Decode : public ::testing::TestWithParam<TinyLlamaOptions> {};

INSTANTIATE_TEST_SUITE_P(Models, Decode,
                         ::testing::Values(TinyLlamaOptions{}, TinyLlamaOptions{.kv_heads = 1},
                                           TinyLlamaOptions{.kv_heads = 4}));

TEST_P(Decode, PositionByPositionGivesWhatForwardGivesForAll) {
  Loaded tiny(GetParam());
  const torch::NoGradGuard no_grad;
  constexpr int64_t kBatch = 3, kSeq = 17;
  torch::manual_seed(2);
  const torch::Tensor x = torch::randn({kBatch, kSeq, tiny.config().hidden_size});
  const RopeTable rope = make_rope_table(tiny.config(), kSeq);
  for (const auto& [compute, tolerance] :
       {std::pair(torch::kFloat32, 1e-5), std::pair(torch::kBFloat16, 0.1)}) {
    const torch::Tensor whole = tiny.blocks[0]->forward(x, rope, compute);
    KeyValueCache cache = make_key_value_cache(tiny.config(), kBatch, kSeq, compute);
    for (int64_t position = 0; position < kSeq; ++position) {
      EXPECT_TRUE(is_near(tiny.blocks[0]->decode(x.select(1, position), rope, compute, cache),
                          whole.select(1, position), tolerance))
          << position;
    }
    EXPECT_EQ(cache.length, kSeq);
    EXPECT_THROW(tiny.blocks[0]->decode(x.select(1, 0), rope, compute, cache), c10::Error);
  }
}

TEST(GenerateText, GreedyTokensAreTheLikeliestOnes) {
  Loaded tiny;
  const torch::Tensor text = tiny.generate({.sequences = 5, .length = 12, .greedy_tokens = 11});
  ASSERT_EQ(text.sizes(), (std::vector<int64_t>{5, 12}));
  const torch::Tensor likeliest = tiny.log_probabilities(text).argmax(-1);
  EXPECT_TRUE(torch::equal(text.narrow(1, 1, 11), likeliest.narrow(1, 0, 11)));
}

TEST(GenerateText, StartsEachSequenceWithAnEntryOfItsOwn) {
  Loaded tiny;  // 96 entries
  const torch::Tensor text = tiny.generate({.sequences = 96, .length = 1});
  const int64_t* first = text.data_ptr<int64_t>();
  EXPECT_EQ(std::set<int64_t>(first, first + 96).size(), 96u);
  EXPECT_FALSE(std::is_sorted(first, first + 96));
  const torch::Tensor more = tiny.generate({.sequences = 100, .length = 1});
  EXPECT_TRUE(torch::equal(more.narrow(0, 96, 4), more.narrow(0, 0, 4)));
}

TEST(GenerateText, OneSeedWritesOneText) {
  Loaded tiny;
  GenerationOptions options{.sequences = 6, .length = 20, .seed = 7};
  const torch::Tensor text = tiny.generate(options), again = tiny.generate(options);
  EXPECT_TRUE(torch::equal(text, again));
  options.seed = 8;
  EXPECT_FALSE(torch::equal(text, tiny.generate(options)));
}

TEST(GenerateText, SamplesAsOftenAsTheModelsProbabilitiesSay) {
  Loaded tiny;
  // Every entry starts many sequences: their second tokens are draws from one distribution.
  constexpr int64_t kPerEntry = 60;
  for (const double temperature : {1.0, 0.3}) {
    const torch::Tensor text = tiny.generate(
        {.sequences = 96 * kPerEntry, .length = 2, .greedy_tokens = 0, .temperature = temperature});
    const torch::Tensor expected =  // [entries, vocab], one row per first token
        torch::softmax(
            tiny.log_probabilities(torch::arange(96).unsqueeze(1)).select(1, 0) / temperature, -1);
    torch::Tensor counts = torch::zeros({96, 96});
    counts.index_put_({text.select(1, 0), text.select(1, 1)}, torch::ones({text.size(0)}),
                      /*accumulate=*/true);
    // Pearson's statistic over the cells that are not too rare for it: each has the mean 1 - p and
    // a variance of at most 3, and there are some thousands.
    const torch::Tensor means = expected * double(kPerEntry);
    const torch::Tensor common = means >= 1;
    const double statistic =
        ((counts - means).pow(2) / means).masked_select(common).sum().item<double>();
    const double mean = (1 - expected).masked_select(common).sum().item<double>();
    EXPECT_GT(common.sum().item<int64_t>(), 100);
    EXPECT_NEAR(statistic / mean, 1, 0.5) << temperature;
  }
}

TEST(GenerateText, ASequenceDoesNotDependOnHowManyThereAre) {
  Loaded tiny;
  GenerationOptions options{.sequences = 3, .length = 10, .seed = 3};
  const torch::Tensor few = tiny.generate(options);
  options.sequences = 9;
  EXPECT_TRUE(torch::equal(tiny.generate(options).narrow(0, 0, 3), few));
}

TEST(GenerateText, StopsWhenAsked) {
  Loaded tiny;
  std::stop_source stop;
  double share = 0;
  const auto text = generate_text(
      tiny.config(), tiny.ends, tiny.blocks, {.sequences = 2, .length = 11},
      [&](double fraction) {
        share = fraction;
        if (fraction >= 0.5) stop.request_stop();
      },
      stop.get_token());
  EXPECT_THAT(text, StatusIs(absl::StatusCode::kCancelled, HasSubstr("stopped")));
  EXPECT_NEAR(share, 0.5, 1e-9);
}

TEST(SequencesAtOnce, KeepsTheCachesWithinOneGibibyte) {
  ModelConfig config;  // keys and values of a token: 2 * 32 blocks * 8 heads * 128 * 2 bytes
  config.num_hidden_layers = 32;
  config.num_key_value_heads = 8;
  config.head_dim = 128;
  const auto at_once = [&](int64_t sequences, int64_t length) {
    return sequences_at_once(
        config, {.sequences = sequences, .length = length, .compute = torch::kBFloat16});
  };
  EXPECT_EQ(at_once(1000, 2048), 4);
  EXPECT_EQ(at_once(3, 2048), 3);
  EXPECT_EQ(at_once(1000, 8), 256);
  EXPECT_EQ(at_once(1000, 131072), 1);
}

}  // namespace
}  // namespace qaas
