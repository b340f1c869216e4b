#include "workers/engine/data/json_tokenizer.h"

#include <nlohmann/json.hpp>

#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using nlohmann::json;
using ::qaas::testing::IsOk;
using ::qaas::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
using Special = Tokenizer::SpecialTokens;
using Ids = std::vector<int32_t>;

/// Plain BPE over "a".."e" and the blank, with the merges ab, abc and de.
json letters() {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder", nullptr},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab",
             {{"a", 0},
              {"b", 1},
              {"c", 2},
              {"d", 3},
              {"e", 4},
              {" ", 5},
              {"ab", 6},
              {"abc", 7},
              {"de", 8},
              {"bc", 9},
              {"abcde", 10}}},
            {"merges", {"b c", "a b", "ab c", "d e"}}}}};
}

json added(int id, const char* content, const json& flags = json::object()) {
  json token = {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  token.update(flags);
  return token;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> parse(const json& file,
                                                 const json& config = json::object()) {
  return JsonTokenizer::parse(file.dump(), config);
}

Ids encode(const json& file, std::string_view text, Special special = Special::kOmit,
           const json& config = json::object()) {
  const auto tokenizer = parse(file, config);
  EXPECT_THAT(tokenizer, IsOk());
  if (!tokenizer.ok()) return {};
  const auto ids = (*tokenizer)->encode(text, special);
  EXPECT_THAT(ids, IsOk());
  return ids.ok() ? *ids : Ids();
}

TEST(JsonTokenizer, MergesTheLowestRankFirst) {
  EXPECT_THAT(encode(letters(), "abc"), ElementsAre(0, 9));  // b+c outranks a+b
  json other = letters();
  other["model"]["merges"] = {"a b", "b c", "ab c", "d e"};
  EXPECT_THAT(encode(other, "abc"), ElementsAre(7));
  EXPECT_THAT(encode(other, "abcde"), ElementsAre(7, 8));
}

TEST(JsonTokenizer, MergesTheLeftmostOnTies) {
  json file = letters();
  file["model"]["vocab"] = {{"a", 0}, {"aa", 1}};
  file["model"]["merges"] = {"a a"};
  EXPECT_THAT(encode(file, "aaaaa"), ElementsAre(1, 1, 0));
}

TEST(JsonTokenizer, ReadsBothSpellingsOfMerges) {
  json pairs = letters();
  pairs["model"]["merges"] = json::parse(R"([["b","c"],["a","b"],["ab","c"],["d","e"]])");
  for (const char* text : {"abc", "abde", "dedeab"}) {
    EXPECT_EQ(encode(pairs, text), encode(letters(), text)) << text;
  }
}

TEST(JsonTokenizer, TakesAWholePieceFromTheVocabularyOnlyWhenMergesAreIgnored) {
  EXPECT_THAT(encode(letters(), "abcde"), ElementsAre(0, 9, 8));
  json file = letters();
  file["model"]["ignore_merges"] = true;
  EXPECT_THAT(encode(file, "abcde"), ElementsAre(10));
  EXPECT_THAT(encode(file, "abcdea"), ElementsAre(0, 9, 8, 0));
}

TEST(JsonTokenizer, EncodesALongPieceInOneGo) {
  std::string text;
  Ids expected;
  for (int i = 0; i < 200'000; ++i) {
    text += "de";
    expected.push_back(8);
  }
  EXPECT_EQ(encode(letters(), text), expected);
}

TEST(JsonTokenizer, RefusesACharacterThatNothingSpells) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto tokenizer, parse(letters()));
  EXPECT_THAT(tokenizer->encode("ab\u00fc", Special::kOmit),
              StatusIs(kInvalid, HasSubstr("U+00FC")));
}

TEST(JsonTokenizer, SpellsUnknownCharactersByTheUnknownToken) {
  json file = letters();
  file["model"]["vocab"]["<unk>"] = 11;
  file["model"]["unk_token"] = "<unk>";
  EXPECT_THAT(encode(file, "xyazb"), ElementsAre(11, 11, 0, 11, 1));
  file["model"]["fuse_unk"] = true;
  EXPECT_THAT(encode(file, "xyazb"), ElementsAre(11, 0, 11, 1));
}

TEST(JsonTokenizer, FallsBackToBytesWhereAllOfACharacterAreThere) {
  json file = letters();
  file["model"]["byte_fallback"] = true;
  file["model"]["unk_token"] = "<unk>";
  file["model"]["vocab"].update({{"<unk>", 11}, {"<0xC3>", 12}, {"<0xBC>", 13}});
  EXPECT_THAT(encode(file, "a\u00fcb"), ElementsAre(0, 12, 13, 1));
  EXPECT_THAT(encode(file, "a\u00f6b"), ElementsAre(0, 11, 1));
}

TEST(JsonTokenizer, RefusesTextThatIsNotUtf8) {
  QAAS_ASSERT_OK_AND_ASSIGN(const auto tokenizer, parse(letters()));
  EXPECT_THAT(tokenizer->encode("a\xC3", Special::kOmit), StatusIs(kInvalid, HasSubstr("UTF-8")));
}

TEST(JsonTokenizer, SpellsBytesInTheByteLevelAlphabet) {
  json file = letters();
  file["pre_tokenizer"] = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  // Blank is U+0120, newline U+010A, 0xAD U+0143, 0xC3 and 0xBC themselves.
  file["model"]["vocab"] = {{"a", 0},      {"\u0120", 1},  {"\u010a", 2}, {"\u00c3", 3},
                            {"\u00bc", 4}, {"\u0120a", 5}, {"\u00c2", 6}, {"\u0143", 7}};
  file["model"]["merges"] = {"\u0120 a"};
  EXPECT_THAT(encode(file, "a a\n\u00fc\u00ad"), ElementsAre(0, 5, 2, 3, 4, 6, 7));
  file["pre_tokenizer"]["add_prefix_space"] = true;
  EXPECT_THAT(encode(file, "a"), ElementsAre(5));
  EXPECT_THAT(encode(file, " a"), ElementsAre(5));
}

TEST(JsonTokenizer, CutsByGpt2sPatternWhereByteLevelSaysSo) {
  json file = letters();
  file["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  file["model"]["vocab"] = {{"a", 0}, {"\u0120", 1}, {"\u0120\u0120", 2}, {"\u0120a", 3}};
  file["model"]["merges"] = {"\u0120 \u0120", "\u0120 a"};
  EXPECT_THAT(encode(file, "a   a"), ElementsAre(0, 2, 3));  // the last blank goes with the word
  file["pre_tokenizer"]["use_regex"] = false;
  EXPECT_THAT(encode(file, "a   a"), ElementsAre(0, 2, 3));
  EXPECT_THAT(encode(file, "a  a"), ElementsAre(0, 2, 0));
  file["pre_tokenizer"]["use_regex"] = true;
  EXPECT_THAT(encode(file, "a  a"), ElementsAre(0, 1, 3));
}

TEST(JsonTokenizer, NormalizesAsLlama2Does) {
  json file = letters();
  file["normalizer"] = {
      {"type", "Sequence"},
      {"normalizers",
       {{{"type", "Prepend"}, {"prepend", "\u2581"}},
        {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}}}};
  file["model"]["vocab"] = {{"a", 0}, {"\u2581", 1}, {"\u2581a", 2}};
  file["model"]["merges"] = {"\u2581 a"};
  file["added_tokens"] = {added(3, "<s>")};
  EXPECT_THAT(encode(file, "a a"), ElementsAre(2, 2));
  EXPECT_THAT(encode(file, ""), ElementsAre());
  EXPECT_THAT(encode(file, "a<s>a<s>"), ElementsAre(2, 3, 2, 3));  // prepended to every stretch
}

TEST(JsonTokenizer, ComposesCharactersUnderNfc) {
  json file = letters();
  file["model"]["vocab"] = {{"e", 0}, {"\u0301", 1}, {"\u00e9", 2}};
  file["model"]["merges"] = json::array();
  EXPECT_THAT(encode(file, "e\u0301"), ElementsAre(0, 1));
  file["normalizer"] = {{"type", "NFC"}};
  EXPECT_THAT(encode(file, "e\u0301"), ElementsAre(2));
}

json metaspace(const char* scheme, bool split) {
  json file = letters();
  file["pre_tokenizer"] = {{"type", "Metaspace"},
                           {"replacement", "\u2581"},
                           {"prepend_scheme", scheme},
                           {"split", split}};
  file["model"]["vocab"] = {
      {"a", 0}, {"\u2581", 1}, {"\u2581a", 2}, {"\u2581\u2581", 3}, {"a\u2581", 4}};
  file["model"]["merges"] = {"\u2581 \u2581", "\u2581 a", "a \u2581"};
  file["added_tokens"] = {added(5, "<s>")};
  return file;
}

TEST(JsonTokenizer, PrependsTheMetaspaceByItsScheme) {
  EXPECT_THAT(encode(metaspace("always", false), "a<s>a"), ElementsAre(2, 5, 2));
  EXPECT_THAT(encode(metaspace("first", false), "a<s>a"), ElementsAre(2, 5, 0));
  EXPECT_THAT(encode(metaspace("first", false), "<s>a"), ElementsAre(5, 0));
  EXPECT_THAT(encode(metaspace("never", false), "a<s>a"), ElementsAre(0, 5, 0));
  EXPECT_THAT(encode(metaspace("always", false), " a"), ElementsAre(2));
}

TEST(JsonTokenizer, SplitsBeforeEachMetaspaceOnlyWhereAsked) {
  EXPECT_THAT(encode(metaspace("never", false), "a  a"), ElementsAre(0, 3, 0));
  EXPECT_THAT(encode(metaspace("never", true), "a  a"), ElementsAre(0, 1, 2));
  EXPECT_THAT(encode(metaspace("never", true), "a "), ElementsAre(0, 1));
}

TEST(JsonTokenizer, CutsOutTheLongestAddedTokenFirst) {
  json file = letters();
  file["added_tokens"] = {added(11, "<a>"), added(12, "<a><b>"), added(13, "<b>")};
  EXPECT_THAT(encode(file, "ab<a><b>ab<a>b<b>"), ElementsAre(6, 12, 6, 11, 1, 13));
}

TEST(JsonTokenizer, ReadsASpecialTokensTextAsPlainTextWhenToldSo) {
  json file = letters();
  file["added_tokens"] = {added(11, "cd"), added(12, "ec", {{"special", false}}),
                          added(13, "dd", {{"normalized", true}})};
  QAAS_ASSERT_OK_AND_ASSIGN(const auto tokenizer, parse(file));
  using Inside = Tokenizer::SpecialText;
  const auto plain = tokenizer->encode("acdecdda", Special::kOmit, Inside::kPlain);
  const auto parsed = tokenizer->encode("acdecdda", Special::kOmit, Inside::kParse);
  ASSERT_THAT(plain, IsOk());
  ASSERT_THAT(parsed, IsOk());
  EXPECT_THAT(*plain, ElementsAre(0, 2, 3, 12, 3, 3, 0));  // "ec" is added, but not special
  EXPECT_THAT(*parsed, ElementsAre(0, 11, 12, 13, 0));
}

TEST(JsonTokenizer, SwallowsWhiteSpaceBesideAStrippingToken) {
  json file = letters();
  file["added_tokens"] = {added(11, "<l>", {{"lstrip", true}}),
                          added(12, "<r>", {{"rstrip", true}})};
  EXPECT_THAT(encode(file, "a \u00a0<l> a"), ElementsAre(0, 11, 5, 0));
  EXPECT_THAT(encode(file, "a <r> \n a"), ElementsAre(0, 5, 12, 0));
}

TEST(JsonTokenizer, FindsASingleWordTokenOnlyOnItsOwn) {
  json file = letters();
  file["added_tokens"] = {added(11, "de", {{"single_word", true}})};
  file["model"]["vocab"].erase("de");
  file["model"]["vocab"]["zz"] = 8;
  file["model"]["merges"] = json::array();
  EXPECT_THAT(encode(file, "de de"), ElementsAre(11, 5, 11));
  EXPECT_THAT(encode(file, "ade dea"), ElementsAre(0, 3, 4, 5, 3, 4, 0));
}

TEST(JsonTokenizer, ComparesANormalizedTokenInNormalizedForm) {
  json file = letters();
  file["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", "x"}}}, {"content", "a"}};
  file["added_tokens"] = {added(11, "<x>", {{"normalized", true}})};
  EXPECT_THAT(encode(file, "b<a>b<x>"), ElementsAre(1, 11, 1, 11));
}

TEST(JsonTokenizer, PutsTheTemplateAroundATextUnlessToldNotTo) {
  json file = letters();
  file["added_tokens"] = {added(11, "<s>"), added(12, "</s>")};
  file["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {{{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}},
        {{"type", "TemplateProcessing"},
         {"single",
          {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
           {{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
           {{"SpecialToken", {{"id", "</s>"}, {"type_id", 0}}}}}},
         {"pair", json::array()},
         {"special_tokens",
          {{"<s>", {{"id", "<s>"}, {"ids", {11}}, {"tokens", {"<s>"}}}},
           {"</s>", {{"id", "</s>"}, {"ids", {12}}, {"tokens", {"</s>"}}}}}}}}}};
  EXPECT_THAT(encode(file, "ab", Special::kAdd), ElementsAre(11, 6, 12));
  EXPECT_THAT(encode(file, "", Special::kAdd), ElementsAre(11, 12));
  EXPECT_THAT(encode(file, "ab", Special::kOmit), ElementsAre(6));
  EXPECT_THAT(parse(file, {{"add_bos_token", false}}),
              StatusIs(kInvalid, AllOf(HasSubstr("post_processor"), HasSubstr("add_bos_token"))));
}

TEST(JsonTokenizer, LetsTheConfigDecideWhereThereIsNoTemplate) {
  json file = letters();
  file["added_tokens"] = {added(11, "<s>"), added(12, "</s>")};
  const json config = {{"bos_token", "<s>"},
                       {"eos_token", {{"content", "</s>"}, {"lstrip", false}}}};
  EXPECT_THAT(encode(file, "ab", Special::kAdd, config), ElementsAre(6));
  json both = config;
  both.update({{"add_bos_token", true}, {"add_eos_token", true}});
  EXPECT_THAT(encode(file, "ab", Special::kAdd, both), ElementsAre(11, 6, 12));
  both["bos_token"] = "<none>";
  EXPECT_THAT(parse(file, both),
              StatusIs(kInvalid, AllOf(HasSubstr("tokenizer_config.json"), HasSubstr("'<none>'"))));
}

TEST(JsonTokenizer, CountsAddedTokensInItsSize) {
  json file = letters();
  QAAS_ASSERT_OK_AND_ASSIGN(const auto plain, parse(file));
  EXPECT_EQ(plain->size(), 11);
  file["added_tokens"] = {added(0, "a"), added(11, "<s>"), added(12, "</s>")};
  QAAS_ASSERT_OK_AND_ASSIGN(const auto more, parse(file));
  EXPECT_EQ(more->size(), 13);
}

struct Refusal {
  const char* pointer;
  json value;
  const char* message;
};

TEST(JsonTokenizer, RefusesWhatIsNotImplementedByName) {
  const json split = {{"type", "Split"},
                      {"pattern", {{"Regex", "a"}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const auto split_with = [&split](const char* field, const json& value) {
    json changed = split;
    changed[field] = value;
    return changed;
  };
  const std::vector<Refusal> cases = {
      {"/version", "2.0", "'version': is '2.0', accepted: 1.0"},
      {"/extra", 1, "'extra'"},
      {"/normalizer", {{"type", "Lowercase"}}, "'normalizer.type': is 'Lowercase'"},
      {"/normalizer", {{"type", "NFC"}, {"x", 1}}, "'normalizer.x'"},
      {"/normalizer",
       {{"type", "Replace"}, {"pattern", {{"Regex", "a"}}}, {"content", ""}},
       "'normalizer.pattern'"},
      {"/normalizer",
       {{"type", "Sequence"}, {"normalizers", {{{"type", "Strip"}}}}},
       "'normalizer.normalizers[0].type': is 'Strip'"},
      {"/normalizer", "NFC", "expected an object or null"},
      {"/pre_tokenizer", {{"type", "Digits"}}, "'pre_tokenizer.type': is 'Digits'"},
      {"/pre_tokenizer", split_with("behavior", "Removed"), "is 'Removed', accepted: Isolated"},
      {"/pre_tokenizer", split_with("invert", true), "'pre_tokenizer.invert'"},
      {"/pre_tokenizer", split_with("pattern", {{"Regex", "\\w"}}), "'pre_tokenizer.pattern'"},
      {"/pre_tokenizer", split_with("pattern", "a"), "'pre_tokenizer.pattern'"},
      {"/pre_tokenizer",
       {{"type", "Sequence"}, {"pretokenizers", {{{"type", "Punctuation"}}}}},
       "'pre_tokenizer.pretokenizers[0].type'"},
      {"/pre_tokenizer",
       {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "last"}},
       "'last', accepted: always, first, never"},
      {"/pre_tokenizer",
       {{"type", "Metaspace"},
        {"replacement", "_"},
        {"prepend_scheme", "first"},
        {"add_prefix_space", false}},
       "add_prefix_space"},
      {"/post_processor", {{"type", "RobertaProcessing"}}, "is 'RobertaProcessing'"},
      {"/post_processor",
       {{"type", "TemplateProcessing"}, {"single", json::array()}},
       "has no sequence A"},
      {"/post_processor",
       {{"type", "TemplateProcessing"},
        {"single", {{{"SpecialToken", {{"id", "<s>"}}}}, {{"Sequence", {{"id", "A"}}}}}}},
       "'<s>', which 'special_tokens' does not define"},
      {"/post_processor",
       {{"type", "TemplateProcessing"}, {"single", {{{"Sequence", {{"id", "B"}}}}}}},
       "holds"},
      {"/model/type", "Unigram", "'model.type': is 'Unigram', accepted: BPE"},
      {"/model/dropout", 0.1, "'model.dropout'"},
      {"/model/continuing_subword_prefix", "##", "'model.continuing_subword_prefix'"},
      {"/model/end_of_word_suffix", "</w>", "'model.end_of_word_suffix'"},
      {"/model/unk_token", "<unk>", "the vocabulary lacks"},
      {"/model/max_input_chars_per_word", 100, "'model.max_input_chars_per_word'"},
      {"/model/vocab", json::object(), "'model.vocab'"},
      {"/model/vocab/a", -1, "token 'a' has the number -1"},
      {"/model/vocab/a", int64_t{1} << 40, "expected an id below"},
      {"/model/merges", nullptr, "'model.merges': is missing"},
      {"/model/merges", {"ab"}, "'model.merges[0]'"},
      {"/model/merges", json::array({"a b", "a x"}), "'model.merges[1]'"},
      {"/model/merges", {"a c"}, "the vocabulary lacks one"},
      {"/model/merges", json::parse(R"([["a","b","c"]])"), "'model.merges[0]'"},
      {"/model", nullptr, "field 'model'"},
      {"/added_tokens", {added(11, "")}, "'added_tokens[0].content': is empty"},
      {"/added_tokens", {added(3, "a")}, "has id 3, the vocabulary gives it 0"},
      {"/added_tokens", {added(20, "<s>")}, "the ids after the vocabulary give it 11"},
      {"/added_tokens", {added(11, "<s>"), added(11, "<s>")}, "listed twice"},
      {"/added_tokens", {added(11, "<s>", {{"x", 1}})}, "'added_tokens[0].x'"},
      {"/added_tokens", {{{"id", 11}}}, "'added_tokens[0].content': is missing"},
      {"/added_tokens", 3, "expected an array"},
  };
  for (const Refusal& refusal : cases) {
    json file = letters();
    file[json::json_pointer(refusal.pointer)] = refusal.value;
    EXPECT_THAT(parse(file), StatusIs(kInvalid, HasSubstr(refusal.message)))
        << refusal.pointer << " " << refusal.value;
  }
}

TEST(JsonTokenizer, RefusesWhatIsNotATokenizerFile) {
  EXPECT_THAT(JsonTokenizer::parse("", json::object()), StatusIs(kInvalid, HasSubstr("JSON")));
  EXPECT_THAT(JsonTokenizer::parse("[]", json::object()), StatusIs(kInvalid, HasSubstr("object")));
  EXPECT_THAT(JsonTokenizer::parse("{}", json::object()), StatusIs(kInvalid, HasSubstr("'model'")));
  EXPECT_THAT(JsonTokenizer::parse(R"({"model":{"vocab":{"a":1,"a":2}}})", json::object()),
              StatusIs(kInvalid, HasSubstr("'a' occurs twice")));
}

}  // namespace
}  // namespace qaas
