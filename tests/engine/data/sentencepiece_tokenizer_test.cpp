#include "workers/engine/data/sentencepiece_tokenizer.h"

#include <nlohmann/json.hpp>

#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using ::qaas::testing::IsOk;
using ::qaas::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

/// A field of a protobuf message: a number, or bytes shorter than 128.
std::string field(int tag, int number) {
  std::string bytes(1, static_cast<char>(tag << 3));
  if (tag > 15) bytes = {static_cast<char>((tag << 3 & 0x7F) | 0x80), static_cast<char>(tag >> 4)};
  return bytes + static_cast<char>(number);
}
std::string field(int tag, const std::string& bytes) {
  return std::string(1, static_cast<char>(tag << 3 | 2)) + static_cast<char>(bytes.size()) + bytes;
}

/// A piece whose score is minus its rank, as trainers write it.
std::string piece(const std::string& text, int rank, int type = 1) {
  const float score = static_cast<float>(-rank);
  const std::string bits(reinterpret_cast<const char*>(&score), sizeof(score));
  return field(1, field(1, text) + static_cast<char>(2 << 3 | 5) + bits + field(3, type));
}

const std::string kBpe = field(2, field(3, 2));
const std::string kIdentity = field(3, field(1, "identity") + field(4, 0));

/// Ids: <unk> 0, <s> 1, </s> 2, the mark 3, a 4, b 5, ab 6, mark+a 7, <sep> 8.
std::string letters() {
  return piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("\u2581", 9) +
         piece("a", 10) + piece("b", 11) + piece("ab", 0) + piece("\u2581a", 1) +
         piece("<sep>", 0, 4) + kBpe + kIdentity;
}

using SpecialText = Tokenizer::SpecialText;

absl::StatusOr<std::vector<int32_t>> encode(const std::string& model, std::string_view text,
                                            SpecialText inside = SpecialText::kPlain) {
  const auto tokenizer =
      SentencePieceTokenizer::parse(model, nlohmann::json{{"add_bos_token", false}});
  if (!tokenizer.ok()) return tokenizer.status();
  return (*tokenizer)->encode(text, Tokenizer::SpecialTokens::kAdd, inside);
}

TEST(SentencePieceTokenizer, MergesTheBestScoreFirstBehindADummyPrefix) {
  EXPECT_THAT(*encode(letters(), "ab"), ElementsAre(3, 6));
  EXPECT_THAT(*encode(letters(), "a a"), ElementsAre(7, 7));
  EXPECT_THAT(*encode(letters(), ""), ElementsAre());
}

TEST(SentencePieceTokenizer, KeepsUserDefinedPiecesWhole) {
  EXPECT_THAT(*encode(letters(), "a<sep>b"), ElementsAre(7, 8, 5));
  EXPECT_THAT(*encode(letters(), "a<sep>b", SpecialText::kParse), ElementsAre(7, 8, 5));
}

TEST(SentencePieceTokenizer, SpellsControlPiecesOutUnlessTheyAreToBeParsed) {
  EXPECT_THAT(*encode(letters(), "<s>"), ElementsAre(3, 0));
  EXPECT_THAT(*encode(letters(), "<s>", SpecialText::kParse), ElementsAre(1));
  // What follows one is a text of its own, dummy prefix included.
  EXPECT_THAT(*encode(letters(), "<s>ab</s>a", SpecialText::kParse), ElementsAre(1, 3, 6, 2, 7));
}

TEST(SentencePieceTokenizer, FusesUnknownCharacters) {
  EXPECT_THAT(*encode(letters(), "xyzaq"), ElementsAre(3, 0, 4, 0));
}

TEST(SentencePieceTokenizer, RefusesWhatIsNotSupportedByName) {
  const std::string pieces = piece("<unk>", 0, 2) + piece("a", 1);
  EXPECT_THAT(encode(pieces + field(2, field(3, 1)) + kIdentity, "a"),
              StatusIs(kInvalid, HasSubstr("model_type 1")));
  EXPECT_THAT(encode(pieces + kBpe, "a"),
              StatusIs(kInvalid, HasSubstr("remove_extra_whitespaces")));
  EXPECT_THAT(
      encode(pieces + kBpe + field(3, field(1, "nmt_nfkc") + field(2, "map") + field(4, 0)), "a"),
      StatusIs(kInvalid, HasSubstr("normalizer 'nmt_nfkc'")));
  EXPECT_THAT(encode(pieces + kBpe + field(3, field(4, 0) + field(5, 0)), "a"),
              StatusIs(kInvalid, HasSubstr("escape_whitespaces")));
  EXPECT_THAT(encode(pieces + field(2, field(3, 2) + field(24, 1)) + kIdentity, "a"),
              StatusIs(kInvalid, HasSubstr("treat_whitespace_as_suffix")));
  EXPECT_THAT(encode(pieces + piece("b", 2, 5) + kBpe + kIdentity, "a"),
              StatusIs(kInvalid, HasSubstr("piece 'b' of type 5")));
  EXPECT_THAT(encode(pieces + piece("a", 2) + kBpe + kIdentity, "a"),
              StatusIs(kInvalid, HasSubstr("piece 'a' occurs twice")));
  EXPECT_THAT(encode(pieces + piece("ac", 2) + kBpe + kIdentity, "a"),
              StatusIs(kInvalid, HasSubstr("the character 'c'")));
  EXPECT_THAT(encode(pieces + field(2, field(3, 2) + field(35, 1)) + kIdentity, "a"),
              StatusIs(kInvalid, HasSubstr("not all 256")));
}

TEST(SentencePieceTokenizer, SurvivesEveryTruncatedPrefix) {
  const std::string whole = letters();
  ASSERT_THAT(encode(whole, "ab"), IsOk());
  for (size_t size = 0; size < whole.size(); ++size) {
    // A cut between two fields leaves a message, but none with the normalizer, which comes last.
    EXPECT_THAT(encode(whole.substr(0, size), "ab"), StatusIs(kInvalid, HasSubstr(" "))) << size;
  }
}

}  // namespace
}  // namespace qaas
