#include "workers/engine/eval/task_file.h"

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"
#include "workers/engine/eval/task_formats.h"

namespace qaas {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TemporaryFolder;

nlohmann::json parsed(const std::string& line) { return nlohmann::json::parse(line); }

std::vector<std::string> contexts(const QuestionText& question) {
  std::vector<std::string> texts;
  for (const ChoiceText& choice : question.choices) texts.push_back(choice.context);
  return texts;
}
std::vector<std::string> continuations(const QuestionText& question) {
  std::vector<std::string> texts;
  for (const ChoiceText& choice : question.choices) texts.push_back(choice.continuation);
  return texts;
}

TEST(ParseQuestion, GenericChoicesFollowTheirQuery) {
  QAAS_ASSERT_OK_AND_ASSIGN(
      const QuestionText question,
      parse_question(parsed(R"({"query": "Q", "choices": ["a", "bc"], "gold": 1, "id": 7})")));
  EXPECT_THAT(contexts(question), ElementsAre("Q", "Q"));
  EXPECT_THAT(continuations(question), ElementsAre(" a", " bc"));
  EXPECT_EQ(question.choices[1].answer, "bc");
  EXPECT_EQ(question.gold, 1);
}

TEST(ParseQuestion, ContextOptionsShareTheirContinuation) {
  QAAS_ASSERT_OK_AND_ASSIGN(const QuestionText question, parse_question(parsed(R"(
      {"context_options": ["x Ann", "x Bob"], "continuation": "ran.", "gold": 0})")));
  EXPECT_THAT(contexts(question), ElementsAre("x Ann", "x Bob"));
  EXPECT_THAT(continuations(question), ElementsAre(" ran.", " ran."));
}

TEST(ParseQuestion, WinograndeFillsTheGap) {
  QAAS_ASSERT_OK_AND_ASSIGN(const QuestionText question, parse_question(parsed(R"(
      {"sentence": "The cup fell off the _ and broke. ", "option1": "shelf", "option2": "mat",
       "answer": "2"})")));
  EXPECT_THAT(contexts(question),
              ElementsAre("The cup fell off the shelf", "The cup fell off the mat"));
  EXPECT_THAT(continuations(question), ElementsAre(" and broke.", " and broke."));
  EXPECT_EQ(question.gold, 1);
}

TEST(ParseQuestion, HellaswagIsCleanedAsTheHarnessDoes) {
  QAAS_ASSERT_OK_AND_ASSIGN(const QuestionText question, parse_question(parsed(R"(
      {"activity_label": "Baking", "ctx_a": "A man [header] bakes [title] Bread.",
       "ctx_b": "ÉMILE Then [step]  he", "ctx": "unused", "label": "1",
       "endings": [" eats [substeps] it. ", "sleeps [title] Well."]})")));
  EXPECT_THAT(contexts(question), ElementsAre("Baking: A man bakes. Bread. Émile then  he",
                                              "Baking: A man bakes. Bread. Émile then  he"));
  EXPECT_THAT(continuations(question), ElementsAre(" eats it.", " sleeps. Well."));
  EXPECT_EQ(question.gold, 1);
}

TEST(ParseQuestion, HellaswagWithoutPartsUsesItsContext) {
  QAAS_ASSERT_OK_AND_ASSIGN(const QuestionText question, parse_question(parsed(R"(
      {"ctx": "She [x\ny] sat", "endings": ["a", "b", "c", "d"], "label": 3})")));
  EXPECT_EQ(question.choices[0].context, "She [x\ny] sat");  // a bracket that ends on another line
  EXPECT_EQ(question.gold, 3);
}

TEST(ParseQuestion, BoolqAsksForNoOrYes) {
  QAAS_ASSERT_OK_AND_ASSIGN(const QuestionText question, parse_question(parsed(R"(
      {"passage": "Ice floats.", "question": "does ice sink", "answer": false})")));
  EXPECT_EQ(question.choices[0].context, "Ice floats.\nQuestion: does ice sink?\nAnswer:");
  EXPECT_THAT(continuations(question), ElementsAre(" no", " yes"));
  EXPECT_EQ(question.gold, 0);
}

TEST(ParseQuestion, ArcFindsItsAnswerByLabel) {
  QAAS_ASSERT_OK_AND_ASSIGN(const QuestionText question, parse_question(parsed(R"(
      {"id": "x", "question": "Which?", "answerKey": "3",
       "choices": {"text": ["one", "two", "three"], "label": ["1", "2", "3"]}})")));
  EXPECT_EQ(question.choices[0].context, "Question: Which?\nAnswer:");
  EXPECT_THAT(continuations(question), ElementsAre(" one", " two", " three"));
  EXPECT_EQ(question.gold, 2);
}

TEST(ParseQuestion, PiqaOffersTwoSolutions) {
  QAAS_ASSERT_OK_AND_ASSIGN(const QuestionText question, parse_question(parsed(R"(
      {"goal": "Boil water", "sol1": "heat it", "sol2": "cool it", "label": 0})")));
  EXPECT_EQ(question.choices[1].context, "Question: Boil water\nAnswer:");
  EXPECT_THAT(continuations(question), ElementsAre(" heat it", " cool it"));
}

TEST(ParseQuestion, RefusesWhatItCannotRead) {
  const auto refuses = [](const std::string& line, const std::string& reason) {
    EXPECT_THAT(parse_question(parsed(line)),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(reason)))
        << line;
  };
  refuses("[1]", "an array; expected query, choices, gold");
  refuses(R"({"text": "a"})", "the fields text; expected query");
  refuses(R"({"query": 1, "choices": ["a", "b"], "gold": 0})",
          "'query' is the number 1, expected a string");
  refuses(R"({"query": "", "choices": ["a"], "gold": 0})", "at least two strings");
  refuses(R"({"query": "", "choices": ["a", null], "gold": 0})", "'choices[1]' is null");
  refuses(R"({"query": "", "choices": ["a", "b"], "gold": 2})",
          "'gold' is the number 2, expected the index of a choice, 0 to 1");
  refuses(R"({"query": "", "choices": ["a", "b"], "gold": "1x"})", "'gold' is the string '1x'");
  refuses(R"({"query": "", "choices": ["a", "b"], "gold": true})", "'gold' is true");
  refuses(R"({"sentence": "no gap", "option1": "a", "option2": "b", "answer": "1"})", "gap '_'");
  refuses(R"({"sentence": "a _", "option1": "a", "option2": "b", "answer": "3"})",
          "\"1\" or \"2\"");
  refuses(R"({"question": "", "choices": {"text": ["a", "b"]}, "answerKey": "A"})",
          "an object with 'label'");
  refuses(R"({"question": "", "choices": {"text": ["a", "b"], "label": ["A", "B"]},
              "answerKey": "C"})",
          "'answerKey' is the string 'C', expected one of choices.label");
  refuses(R"({"question": "", "choices": {"text": ["a", "b"], "label": ["A", "B", "C"]},
              "answerKey": "C"})",
          "'choices.label' has 3 entries");
}

/// Files read with the demo model's byte-level tokenizer, which begins every text with a token.
class LoadTask : public ::testing::Test {
 protected:
  void SetUp() override {
    auto tokenizer =
        load_tokenizer(testing::source_folder() / "tests/data/demo/models/kjv-sotu-4m");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
    tokenizer_ = *std::move(tokenizer);
    options_ = {.max_length = 100, .vocab_size = tokenizer_->size()};
  }
  std::vector<int32_t> encoded(std::string_view text, Tokenizer::SpecialTokens special) const {
    return tokenizer_->encode(text, special).value();
  }
  absl::StatusOr<Task> load(const std::string& lines) const {
    return load_task(folder_.write("quiz.jsonl", lines), *tokenizer_, options_);
  }

  TemporaryFolder folder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  TaskOptions options_;
};

TEST_F(LoadTask, TokensAreThoseOfContextAndContinuationTogether) {
  QAAS_ASSERT_OK_AND_ASSIGN(
      const Task task,
      load(R"({"query": "In the beginning", "choices": ["God", "we the people"], "gold": 1})"
           "\n\n"
           R"({"query": "And", "choices": ["it", "so"], "gold": 0})"));
  EXPECT_EQ(task.name, "quiz");
  ASSERT_EQ(task.questions.size(), 2u);
  EXPECT_EQ(task.questions[0].gold, 1);
  const Choice& choice = task.questions[0].choices[1];
  const std::vector<int32_t> whole =
      encoded("In the beginning we the people", Tokenizer::SpecialTokens::kAdd);
  EXPECT_EQ(choice.tokens, whole);
  EXPECT_EQ(choice.scored, std::ssize(whole) - std::ssize(encoded("In the beginning",
                                                                  Tokenizer::SpecialTokens::kAdd)));
  EXPECT_EQ(choice.bytes, 13);
}

TEST_F(LoadTask, BlanksAtTheEndOfAContextBelongToTheContinuation) {
  QAAS_ASSERT_OK_AND_ASSIGN(const Task task,
                            load(R"({"query": "Lord \n", "choices": ["a", "b"], "gold": 0})"));
  const Choice& choice = task.questions[0].choices[0];
  EXPECT_EQ(choice.tokens, encoded("Lord \n a", Tokenizer::SpecialTokens::kAdd));
  EXPECT_EQ(choice.scored, std::ssize(choice.tokens) -
                               std::ssize(encoded("Lord", Tokenizer::SpecialTokens::kAdd)));
  EXPECT_EQ(choice.bytes, 1);
}

TEST_F(LoadTask, AnEmptyContextIsPredictedFromTheBeginningOfTheSequence) {
  QAAS_ASSERT_OK_AND_ASSIGN(const Task task,
                            load(R"({"query": "", "choices": ["a", "b"], "gold": 0})"));
  const Choice& choice = task.questions[0].choices[0];
  EXPECT_EQ(choice.scored, std::ssize(choice.tokens) - 1);
}

TEST_F(LoadTask, LongQuestionsLoseTheirBeginning) {
  QAAS_ASSERT_OK_AND_ASSIGN(
      const Task whole,
      load(
          R"({"query": "one two three four five six", "choices": ["seven", "eight"], "gold": 0})"));
  options_.max_length = 4;
  QAAS_ASSERT_OK_AND_ASSIGN(
      const Task cut,
      load(
          R"({"query": "one two three four five six", "choices": ["seven", "eight"], "gold": 0})"));
  const Choice &longer = whole.questions[0].choices[0], &shorter = cut.questions[0].choices[0];
  EXPECT_EQ(shorter.tokens,
            std::vector<int32_t>(longer.tokens.end() - 5, longer.tokens.end()));  // 4 and the last
  EXPECT_EQ(shorter.scored, longer.scored);
}

TEST_F(LoadTask, AContinuationBeyondTheModelsPositionsIsScoredInFull) {
  options_.max_length = 1;
  QAAS_ASSERT_OK_AND_ASSIGN(
      const Task task,
      load(R"({"query": "one two", "choices": ["b", "many different words here"], "gold": 0})"));
  const Choice& choice = task.questions[0].choices[1];
  EXPECT_GT(choice.scored, 1);
  EXPECT_EQ(std::ssize(choice.tokens), choice.scored + 1);
}

TEST_F(LoadTask, ErrorsNameFileAndLine) {
  const std::string good = R"({"query": "a", "choices": ["b", "c"], "gold": 0})";
  EXPECT_THAT(load(good + "\n{\"query\": \"a\"}\n"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("quiz.jsonl, line 2: "), HasSubstr("fields query"))));
  EXPECT_THAT(load(good + "\n" + good + "\n{"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("quiz.jsonl, line 3: ")));
  EXPECT_THAT(load("\n"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no question")));
  EXPECT_THAT(load_task(folder_ / "nowhere", *tokenizer_, options_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("nowhere")));
  options_.vocab_size = 4;
  EXPECT_THAT(load(good), StatusIs(absl::StatusCode::kInvalidArgument,
                                   HasSubstr("outside the model's vocabulary of 4")));
}

TEST_F(LoadTask, AFolderIsOneTaskOfItsFilesInNameOrder) {
  std::filesystem::create_directory(folder_ / "exam");
  folder_.write("exam/b.jsonl", R"({"query": "a", "choices": ["b", "c"], "gold": 1})");
  folder_.write("exam/a.jsonl", R"({"query": "a", "choices": ["b", "c"], "gold": 0})");
  folder_.write("exam/README", "not a question");
  QAAS_ASSERT_OK_AND_ASSIGN(const Task task, load_task(folder_ / "exam", *tokenizer_, options_));
  EXPECT_EQ(task.name, "exam");
  ASSERT_EQ(task.questions.size(), 2u);
  EXPECT_EQ(task.questions[0].gold, 0);
  EXPECT_EQ(task.questions[1].gold, 1);
  options_.max_questions = 1;
  QAAS_ASSERT_OK_AND_ASSIGN(const Task first, load_task(folder_ / "exam", *tokenizer_, options_));
  EXPECT_EQ(first.questions.size(), 1u);
}

}  // namespace
}  // namespace qaas
