#include "workers/engine/data/tokenizer.h"

#include <thread>

#include <nlohmann/json.hpp>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "workers/engine/data/dataset.h"

namespace qaas {
namespace {

using ::qaas::testing::shared_folder;
using ::qaas::testing::source_folder;
using ::qaas::testing::StatusIs;
using ::qaas::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
using Special = Tokenizer::SpecialTokens;

TEST(LoadTokenizer, ReportsAFolderWithoutOne) {
  const TemporaryFolder folder;
  EXPECT_THAT(load_tokenizer(folder.path()),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("tokenizer.json"), HasSubstr("tokenizer.model"))));
  EXPECT_THAT(load_tokenizer(folder / "none"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
}

TEST(LoadTokenizer, NamesTheFileThatIsBroken) {
  const TemporaryFolder folder;
  folder.write("tokenizer.model", "not a model");
  EXPECT_THAT(load_tokenizer(folder.path()), StatusIs(kInvalid, HasSubstr("tokenizer.model: ")));
  folder.write("tokenizer.json", "{");
  EXPECT_THAT(load_tokenizer(folder.path()), StatusIs(kInvalid, HasSubstr("tokenizer.json: ")));
  folder.write("tokenizer_config.json", "[]");
  EXPECT_THAT(load_tokenizer(folder.path()),
              StatusIs(kInvalid, HasSubstr("tokenizer_config.json: ")));
}

TEST(LoadTokenizer, RefusesATokenizerThatPointsOutOfTheFolder) {
  const TemporaryFolder folder;
  std::filesystem::create_symlink(
      source_folder() / "tests/data/demo/models/kjv-sotu-4m/tokenizer.json",
      folder / "tokenizer.json");
  EXPECT_THAT(load_tokenizer(folder.path()), StatusIs(kInvalid, HasSubstr("leaves the folder")));
}

TEST(LoadTokenizer, EncodesWithTheDemoModelsTokenizer) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto tokenizer,
                            load_tokenizer(source_folder() / "tests/data/demo/models/kjv-sotu-4m"));
  EXPECT_EQ(tokenizer->size(), 2048);
  // " the" is one entry of the vocabulary; 2046 and 2047 are the begin and end of a text.
  QAAS_ASSERT_OK_AND_ASSIGN(const auto ids,
                            tokenizer->encode(" the<|end_of_text|> the", Special::kAdd));
  const auto vocabulary = nlohmann::json::parse(testing::read_file(
      source_folder() / "tests/data/demo/models/kjv-sotu-4m/tokenizer.json"))["model"]["vocab"];
  const int32_t the = vocabulary["\u0120the"].get<int32_t>();
  EXPECT_THAT(ids, ElementsAre(2046, the, 2047, the));
}

TEST(LoadTokenizer, EncodesTheSameFromSeveralThreads) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto tokenizer,
                            load_tokenizer(source_folder() / "tests/data/demo/models/kjv-sotu-4m"));
  const std::string text =
      testing::read_file(source_folder() / "tests/data/demo/datasets/sotu-evaluation/text.txt")
          .substr(0, 20'000);
  QAAS_ASSERT_OK_AND_ASSIGN(const auto expected, tokenizer->encode(text, Special::kAdd));
  std::vector<int> same(4, 0);
  std::vector<std::thread> threads;
  for (int& result : same) {
    threads.emplace_back([&] {
      const auto ids = tokenizer->encode(text, Special::kAdd);
      result = ids.ok() && *ids == expected ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(same, ElementsAre(1, 1, 1, 1));
}

/// stories15M: the same text as its published ids, by each of its two tokenizer files.
class Stories15M : public ::testing::TestWithParam<const char*> {};

TEST_P(Stories15M, GivesThePublishedIds) {
  const auto model = shared_folder() / "models/stories15M";
  const auto texts = shared_folder() / "data";
  if (!std::filesystem::exists(model) || !std::filesystem::exists(texts)) {
    GTEST_SKIP() << model << " or " << texts << " is absent";
  }
  const TemporaryFolder folder;
  for (const char* file : {GetParam(), "tokenizer_config.json"}) {
    std::filesystem::copy_file(model / file, folder / file);
  }
  QAAS_ASSERT_OK_AND_ASSIGN(const auto tokenizer, load_tokenizer(folder.path()));
  EXPECT_EQ(tokenizer->size(), 32000);
  const WindowOptions options{.length = 1, .max_count = 1'000'000, .vocab_size = 32000};
  for (const std::string split : {"calib", "eval"}) {
    QAAS_ASSERT_OK_AND_ASSIGN(
        const auto ours,
        load_windows(texts / ("tinystories_" + split + ".jsonl"), tokenizer.get(), options));
    QAAS_ASSERT_OK_AND_ASSIGN(
        const auto published,
        load_windows(texts / ("stories15M_" + split + ".ids"), nullptr, options));
    EXPECT_EQ(ours.count, published.count);
    EXPECT_TRUE(ours.ids == published.ids) << split;
  }
}

INSTANTIATE_TEST_SUITE_P(BothFiles, Stories15M,
                         ::testing::Values("tokenizer.json", "tokenizer.model"),
                         [](const auto& info) {
                           return std::string(info.param) == "tokenizer.json" ? "Json"
                                                                              : "SentencePiece";
                         });

TEST(SentencePiece, FollowsTheFlagsOfTheConfig) {
  const auto model = shared_folder() / "models/stories15M/tokenizer.model";
  if (!std::filesystem::exists(model)) GTEST_SKIP() << model << " is absent";
  const TemporaryFolder folder;
  std::filesystem::copy_file(model, folder / "tokenizer.model");
  const auto encode = [&](Special special) {
    const auto tokenizer = load_tokenizer(folder.path());
    return tokenizer.ok() ? (*tokenizer)->encode("Hello", special) : tokenizer.status();
  };
  EXPECT_THAT(*encode(Special::kAdd), ElementsAre(1, 15043));
  EXPECT_THAT(*encode(Special::kOmit), ElementsAre(15043));
  folder.write("tokenizer_config.json", R"({"add_bos_token": false, "add_eos_token": true})");
  EXPECT_THAT(*encode(Special::kAdd), ElementsAre(15043, 2));
  folder.write("tokenizer_config.json", R"({"add_bos_token": "yes"})");
  EXPECT_THAT(encode(Special::kAdd), StatusIs(kInvalid, HasSubstr("add_bos_token")));
}

}  // namespace
}  // namespace qaas
