#include "workers/engine/data/dataset.h"

#include <set>

#include <nlohmann/json.hpp>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace qaas {
namespace {

using ::qaas::testing::IsOk;
using ::qaas::testing::source_folder;
using ::qaas::testing::StatusIs;
using ::qaas::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string counting(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += std::to_string(i) + (i % 7 == 6 ? "\n" : " ");
  return text;
}

TEST(Dataset, CutsIdsIntoWindowsAndDropsAPartialOne) {
  const TemporaryFolder folder;
  const auto path = folder.write("a.ids", "0 1 2\t3\n\n 4 5\r\n6 7");
  QAAS_ASSERT_OK_AND_ASSIGN(const auto windows,
                            load_windows(path, nullptr, {.length = 3, .vocab_size = 8}));
  EXPECT_EQ(windows.count, 2);
  EXPECT_EQ(windows.length, 3);
  EXPECT_THAT(windows.ids, ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(Dataset, JoinsTheFilesOfAFolderInNameOrder) {
  const TemporaryFolder folder;
  folder.write("b.ids", "2 3");
  folder.write("a.ids", "0 1");
  folder.write("README.md", "not data");
  folder.write(".hidden.ids", "9");
  QAAS_ASSERT_OK_AND_ASSIGN(const auto windows,
                            load_windows(folder.path(), nullptr, {.length = 4, .vocab_size = 4}));
  EXPECT_THAT(windows.ids, ElementsAre(0, 1, 2, 3));
}

TEST(Dataset, TakesTheFirstWindowsThatAreAskedFor) {
  const TemporaryFolder folder;
  const auto path = folder.write("a.ids", counting(100));
  QAAS_ASSERT_OK_AND_ASSIGN(
      const auto asked, load_windows(path, nullptr, {.length = 2, .count = 3, .vocab_size = 100}));
  EXPECT_THAT(asked.ids, ElementsAre(0, 1, 2, 3, 4, 5));
  QAAS_ASSERT_OK_AND_ASSIGN(
      const auto capped,
      load_windows(path, nullptr, {.length = 2, .max_count = 2, .vocab_size = 100}));
  EXPECT_THAT(capped.ids, ElementsAre(0, 1, 2, 3));
}

TEST(Dataset, ReadsNoFurtherThanTheFirstWindowsNeed) {
  const TemporaryFolder folder;
  folder.write("a.ids", "0 1 2 3");
  folder.write("b.ids", "broken");
  EXPECT_THAT(load_windows(folder.path(), nullptr, {.length = 2, .count = 2, .vocab_size = 4}),
              IsOk());
  EXPECT_THAT(load_windows(folder.path(), nullptr, {.length = 2, .count = 3, .vocab_size = 4}),
              StatusIs(kInvalid, HasSubstr("b.ids, line 1")));
}

TEST(Dataset, DrawsDifferentWholeWindowsAtRandom) {
  const TemporaryFolder folder;
  const auto path = folder.write("a.ids", counting(203));
  const WindowOptions options{
      .length = 4, .count = 20, .choice = WindowChoice::kRandom, .seed = 5, .vocab_size = 300};
  QAAS_ASSERT_OK_AND_ASSIGN(const auto windows, load_windows(path, nullptr, options));
  ASSERT_EQ(windows.ids.size(), 80);
  std::set<int32_t> starts;
  for (size_t i = 0; i < 20; ++i) {
    const int32_t start = windows.ids[4 * i];
    EXPECT_EQ(start % 4, 0);
    for (int32_t k = 0; k < 4; ++k)
      EXPECT_EQ(windows.ids[4 * i + static_cast<size_t>(k)], start + k);
    starts.insert(start);
  }
  EXPECT_EQ(starts.size(), 20);
  EXPECT_GT(*starts.rbegin(), 80);  // not simply the first ones
}

TEST(Dataset, DrawsTheSameWindowsForTheSameSeed) {
  const TemporaryFolder folder;
  const auto path = folder.write("a.ids", counting(200));
  WindowOptions options{
      .length = 1, .count = 5, .choice = WindowChoice::kRandom, .seed = 1, .vocab_size = 200};
  const auto first = load_windows(path, nullptr, options);
  const auto again = load_windows(path, nullptr, options);
  options.seed = 2;
  const auto other = load_windows(path, nullptr, options);
  EXPECT_EQ(first->ids, again->ids);
  EXPECT_NE(first->ids, other->ids);
}

TEST(Dataset, DrawsEveryWindowWhenAllAreAskedFor) {
  const TemporaryFolder folder;
  const auto path = folder.write("a.ids", counting(50));
  QAAS_ASSERT_OK_AND_ASSIGN(
      const auto windows,
      load_windows(path, nullptr,
                   {.length = 1, .choice = WindowChoice::kRandom, .seed = 3, .vocab_size = 50}));
  EXPECT_EQ(std::set<int32_t>(windows.ids.begin(), windows.ids.end()).size(), 50);
}

TEST(Dataset, SaysHowManyWindowsThereAreWhenMoreWereAskedFor) {
  const TemporaryFolder folder;
  const auto path = folder.write("a.ids", "1 2 3 4 5");
  EXPECT_THAT(load_windows(path, nullptr, {.length = 2, .count = 3, .vocab_size = 9}),
              StatusIs(kInvalid, HasSubstr("5 tokens make 2 windows of 2, expected at least 3")));
  EXPECT_THAT(load_windows(path, nullptr, {.length = 6, .vocab_size = 9}),
              StatusIs(kInvalid, HasSubstr("0 windows of 6, expected at least 1")));
}

TEST(Dataset, NamesFileAndLineOfABadId) {
  const TemporaryFolder folder;
  for (const auto& [text, message] : std::vector<std::pair<const char*, const char*>>{
           {"1\n2 x\n", "line 2: 'x' is not a decimal"},
           {"1 -2", "line 1: token id -2 is outside"},
           {"1\n\n10", "line 3: token id 10 is outside the model's vocabulary of 10"},
           {"1.5", "'1.5' is not"},
           {"99999999999", "'99999999999' is not"},
           {"+1", "'+1' is not"},
           {"0x1", "'0x1' is not"}}) {
    const auto path = folder.write("a.ids", text);
    EXPECT_THAT(load_windows(path, nullptr, {.length = 1, .vocab_size = 10}),
                StatusIs(kInvalid, AllOf(HasSubstr("a.ids"), HasSubstr(message))));
  }
}

TEST(Dataset, ReportsWhatIsNoDataset) {
  const TemporaryFolder folder;
  const WindowOptions options{.length = 1, .vocab_size = 10};
  EXPECT_THAT(load_windows(folder / "none", nullptr, options),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
  EXPECT_THAT(load_windows(folder.path(), nullptr, options),
              StatusIs(kInvalid, HasSubstr("accepted: .txt, .jsonl and .ids")));
  EXPECT_THAT(load_windows(folder.write("a.parquet", ""), nullptr, options),
              StatusIs(kInvalid, HasSubstr("accepted: .txt, .jsonl and .ids")));
  EXPECT_THAT(load_windows(folder.write("a.txt", "x"), nullptr, options),
              StatusIs(kInvalid, HasSubstr("there is no tokenizer")));
}

TEST(Dataset, RefusesImpossibleOptions) {
  const TemporaryFolder folder;
  const auto path = folder.write("a.ids", "1 2 3");
  for (const WindowOptions& options :
       {WindowOptions{.length = 0, .vocab_size = 9}, WindowOptions{.length = 1, .vocab_size = 0},
        WindowOptions{.length = 1, .count = -1, .vocab_size = 9},
        WindowOptions{.length = 1, .max_count = 0, .vocab_size = 9},
        WindowOptions{.length = int64_t{1} << 40, .vocab_size = 9}}) {
    EXPECT_THAT(load_windows(path, nullptr, options), StatusIs(kInvalid, HasSubstr("expected")));
  }
}

class DatasetOfText : public ::testing::Test {
 protected:
  void SetUp() override {
    auto loaded = load_tokenizer(source_folder() / "tests/data/demo/models/kjv-sotu-4m");
    ASSERT_THAT(loaded, IsOk());
    tokenizer_ = *std::move(loaded);
  }

  std::vector<int32_t> ids(std::string_view text) const {
    return *tokenizer_->encode(text, Tokenizer::SpecialTokens::kAdd);
  }

  std::vector<int32_t> bare_ids(std::string_view text) const {
    return *tokenizer_->encode(text, Tokenizer::SpecialTokens::kOmit);
  }

  absl::StatusOr<std::vector<int32_t>> read(const std::filesystem::path& path,
                                            WindowOptions options = {.length = 1}) const {
    options.max_count = 1000;
    options.vocab_size = 2048;
    auto windows = load_windows(path, tokenizer_.get(), options);
    if (!windows.ok()) return windows.status();
    return std::move(windows->ids);
  }

  /// The same vocabulary; nothing goes around a text.
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer_without_opening() const {
    const auto source = source_folder() / "tests/data/demo/models/kjv-sotu-4m/tokenizer.json";
    auto file = nlohmann::json::parse(testing::read_file(source));
    file["post_processor"] = nullptr;
    const TemporaryFolder folder;
    folder.write("tokenizer.json", file.dump());
    return load_tokenizer(folder.path());
  }

  static constexpr int32_t kBegin = 2046, kEnd = 2047;
  std::unique_ptr<Tokenizer> tokenizer_;
  TemporaryFolder folder_;
};

TEST_F(DatasetOfText, EncodesATextFileAsOneDocument) {
  const std::string text = "In the beginning\n\nGod created\n";
  QAAS_ASSERT_OK_AND_ASSIGN(const auto read_ids, read(folder_.write("a.txt", text)));
  EXPECT_EQ(read_ids, ids(text));
}

TEST_F(DatasetOfText, EncodesEachJsonLineAsADocument) {
  QAAS_ASSERT_OK_AND_ASSIGN(
      const auto read_ids,
      read(folder_.write("a.jsonl", "{\"text\": \"one\", \"id\": 3}\r\n\n{\"text\": \"two\"}")));
  std::vector<int32_t> expected = ids("one");
  for (const int32_t id : ids("two")) expected.push_back(id);
  EXPECT_EQ(read_ids, expected);
}

TEST_F(DatasetOfText, ReadsASpecialTokensTextAsPlainTextUnlessItIsToBeParsed) {
  const auto path = folder_.write("a.txt", "one<|end_of_text|>");
  QAAS_ASSERT_OK_AND_ASSIGN(const auto plain, read(path));
  QAAS_ASSERT_OK_AND_ASSIGN(
      const auto parsed, read(path, {.length = 1, .special_text = Tokenizer::SpecialText::kParse}));
  EXPECT_THAT(plain, Not(Contains(kEnd)));
  EXPECT_THAT(parsed, Contains(kEnd).Times(1));
}

TEST_F(DatasetOfText, PutsBeginOfSequenceWhereItIsAskedFor) {
  const auto path = folder_.write("a.jsonl", "{\"text\": \"one one\"}\n{\"text\": \"two two\"}");
  const std::vector<int32_t> one = bare_ids("one one"), two = bare_ids("two two");
  std::vector<int32_t> none = one, document = {kBegin}, window;
  none.insert(none.end(), two.begin(), two.end());
  document.insert(document.end(), one.begin(), one.end());
  document.push_back(kBegin);
  document.insert(document.end(), two.begin(), two.end());
  for (size_t i = 0; i < none.size(); ++i) {
    if (i % 2 == 0) window.push_back(kBegin);
    window.push_back(none[i]);
  }
  window.resize(window.size() / 3 * 3);

  QAAS_ASSERT_OK_AND_ASSIGN(const auto without,
                            read(path, {.length = 1, .begin_of_sequence = BeginOfSequence::kNone}));
  EXPECT_EQ(without, none);
  QAAS_ASSERT_OK_AND_ASSIGN(
      const auto by_document,
      read(path, {.length = 1, .begin_of_sequence = BeginOfSequence::kDocument}));
  EXPECT_EQ(by_document, document);
  QAAS_ASSERT_OK_AND_ASSIGN(
      const auto by_window,
      read(path, {.length = 3, .begin_of_sequence = BeginOfSequence::kWindow}));
  EXPECT_EQ(by_window, window);
}

TEST_F(DatasetOfText, NeverLetsAWindowSpanTwoDocumentsWhenPackedWithinThem) {
  const auto path = folder_.write("a.jsonl",
                                  "{\"text\": \"In the beginning God created\"}\n"
                                  "{\"text\": \"a\"}\n{\"text\": \"the heaven and the earth\"}");
  const std::vector<int32_t> first = ids("In the beginning God created"),
                             last = ids("the heaven and the earth");
  constexpr size_t kLength = 3;
  std::vector<int32_t> expected(first.begin(),
                                first.begin() + long(first.size() / kLength * kLength));
  expected.insert(expected.end(), last.begin(),
                  last.begin() + long(last.size() / kLength * kLength));
  QAAS_ASSERT_OK_AND_ASSIGN(const auto read_ids,
                            read(path, {.length = kLength, .packing = Packing::kWithinDocument}));
  EXPECT_EQ(read_ids, expected);
}

TEST_F(DatasetOfText, TakesIdsAsTheyAreBesideOpenedWindowsOfText) {
  folder_.write("a.ids", "1 2 3 4 5");
  folder_.write("b.txt", "one one");
  folder_.write("c.ids", "6 7 8");
  QAAS_ASSERT_OK_AND_ASSIGN(
      const auto read_ids,
      read(folder_.path(), {.length = 2, .begin_of_sequence = BeginOfSequence::kWindow}));
  std::vector<int32_t> expected = {1, 2, 3, 4};
  for (const int32_t id : bare_ids("one one")) expected.insert(expected.end(), {kBegin, id});
  expected.insert(expected.end(), {6, 7});
  EXPECT_EQ(read_ids, expected);
}

TEST_F(DatasetOfText, RefusesBeginOfSequenceWhereThereIsNoSuchToken) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto plain, tokenizer_without_opening());
  const auto path = folder_.write("a.txt", "one one");
  WindowOptions options{
      .length = 1, .vocab_size = 2048, .begin_of_sequence = BeginOfSequence::kDocument};
  EXPECT_THAT(load_windows(path, plain.get(), options),
              StatusIs(kInvalid, HasSubstr("BEGIN_OF_SEQUENCE_NONE")));
  options.bos_id = 7;
  QAAS_ASSERT_OK_AND_ASSIGN(const auto opened, load_windows(path, plain.get(), options));
  EXPECT_EQ(opened.ids.front(), 7);
  options.begin_of_sequence = BeginOfSequence::kWindow;
  EXPECT_THAT(load_windows(path, plain.get(), options),
              StatusIs(kInvalid, HasSubstr("windows of 1 tokens have no room")));
  options.begin_of_sequence = BeginOfSequence::kAsTokenizer;
  QAAS_ASSERT_OK_AND_ASSIGN(const auto bare, load_windows(path, plain.get(), options));
  EXPECT_EQ(bare.ids, bare_ids("one one"));
}

TEST(Dataset, TokenizesStoriesToTheIdsThatThePublishedTokenizerGave) {
  const std::filesystem::path shared = testing::shared_folder();
  if (!std::filesystem::exists(shared / "data/tinystories_calib.jsonl")) {
    GTEST_SKIP() << (shared / "data").string() << " is absent";
  }
  QAAS_ASSERT_OK_AND_ASSIGN(const auto tokenizer, load_tokenizer(shared / "models/stories15M"));
  const WindowOptions options{.length = 1, .max_count = int64_t{1} << 30, .vocab_size = 32000};
  for (const auto& [text, ids] : {std::pair("tinystories_calib.jsonl", "stories15M_calib.ids"),
                                  std::pair("tinystories_eval.jsonl", "stories15M_eval.ids")}) {
    const auto tokenized = load_windows(shared / "data" / text, tokenizer.get(), options);
    const auto published = load_windows(shared / "data" / ids, nullptr, options);
    ASSERT_THAT(tokenized, IsOk());
    ASSERT_THAT(published, IsOk());
    EXPECT_TRUE(tokenized->ids == published->ids) << text;
  }
}

TEST_F(DatasetOfText, NamesFileAndLineOfABadJsonLine) {
  for (const auto& [text, message] : std::vector<std::pair<const char*, const char*>>{
           {"{\"text\": \"a\"}\n{\"text\": }", "line 2: not valid JSON"},
           {"{\"content\": \"a\"}", "line 1: expected an object with a string 'text'"},
           {"[\"a\"]", "line 1: expected an object"},
           {"{\"text\": 3}", "line 1: expected an object"}}) {
    EXPECT_THAT(read(folder_.write("a.jsonl", text)),
                StatusIs(kInvalid, AllOf(HasSubstr("a.jsonl"), HasSubstr(message))));
  }
}

TEST_F(DatasetOfText, NamesATextFileThatIsNotUtf8) {
  EXPECT_THAT(read(folder_.write("a.txt", "caf\xE9")),
              StatusIs(kInvalid, AllOf(HasSubstr("a.txt"), HasSubstr("UTF-8"))));
}

TEST_F(DatasetOfText, RefusesATokenizerLargerThanTheModelsVocabulary) {
  const auto path = folder_.write("a.txt", "In the beginning");
  EXPECT_THAT(load_windows(path, tokenizer_.get(), {.length = 1, .vocab_size = 2046}),
              StatusIs(kInvalid, HasSubstr("token id 2046 is outside")));
}

}  // namespace
}  // namespace qaas
