#include "workers/engine/data/dataset.h"

#include <set>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace qaas {
namespace {

using ::qaas::testing::IsOk;
using ::qaas::testing::source_folder;
using ::qaas::testing::StatusIs;
using ::qaas::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

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

  absl::StatusOr<std::vector<int32_t>> read(const std::filesystem::path& path) const {
    auto windows =
        load_windows(path, tokenizer_.get(), {.length = 1, .max_count = 1000, .vocab_size = 2048});
    if (!windows.ok()) return windows.status();
    return std::move(windows->ids);
  }

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
