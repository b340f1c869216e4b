#include "workers/engine/eval/task_file.h"

#include <algorithm>
#include <fstream>

#include <absl/status/status.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include "storage/checkpoint/folder_entry.h"
#include "storage/checkpoint/strict_json.h"
#include "workers/engine/eval/task_formats.h"
#include "workers/engine/eval/white_space.h"

namespace qaas {
namespace {

using Ids = std::vector<int32_t>;

/// What the tokenizer puts before every text.
absl::StatusOr<Ids> leading_ids(const Tokenizer& tokenizer) {
  constexpr std::string_view kText = "a";
  const absl::StatusOr<Ids> bare = tokenizer.encode(kText, Tokenizer::SpecialTokens::kOmit);
  if (!bare.ok()) return bare.status();
  const absl::StatusOr<Ids> full = tokenizer.encode(kText, Tokenizer::SpecialTokens::kAdd);
  if (!full.ok()) return full.status();
  return Ids(full->begin(), std::search(full->begin(), full->end(), bare->begin(), bare->end()));
}

class QuestionReader {
 public:
  QuestionReader(const Tokenizer& tokenizer, const TaskOptions& options, Ids leading)
      : tokenizer_(tokenizer), options_(options), leading_(std::move(leading)) {}

  absl::StatusOr<Question> read(const std::string& line) const {
    const absl::StatusOr<nlohmann::json> object = parse_strict_json(line, {});
    if (!object.ok()) return object.status();
    const absl::StatusOr<QuestionText> text = parse_question(*object);
    if (!text.ok()) return text.status();
    Question question{.gold = text->gold};
    for (const ChoiceText& choice : text->choices) {
      absl::StatusOr<Choice> encoded = encode(choice);
      if (!encoded.ok()) {
        return absl::Status(
            encoded.status().code(),
            absl::StrCat("choice ", question.choices.size(), ": ", encoded.status().message()));
      }
      question.choices.push_back(*std::move(encoded));
    }
    return question;
  }

 private:
  absl::StatusOr<Choice> encode(const ChoiceText& text) const {
    const std::string whole_text = text.context + text.continuation;
    const absl::StatusOr<Ids> whole =
        tokenizer_.encode(whole_text, Tokenizer::SpecialTokens::kOmit);
    if (!whole.ok()) return whole.status();
    const size_t context_end = end_without_space(text.context);
    const absl::StatusOr<Ids> context = tokenizer_.encode(
        std::string_view(text.context).substr(0, context_end), Tokenizer::SpecialTokens::kOmit);
    if (!context.ok()) return context.status();
    const auto wrong_id = std::find_if(whole->begin(), whole->end(), [&](int32_t id) {
      return id < 0 || id >= options_.vocab_size;
    });
    if (wrong_id != whole->end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "token id ", *wrong_id, " is outside the model's vocabulary of ", options_.vocab_size));
    }
    Choice choice{.tokens = leading_,
                  .scored = std::ssize(*whole) - std::ssize(*context),
                  .bytes = std::ssize(text.answer)};
    choice.tokens.insert(choice.tokens.end(), whole->begin(), whole->end());
    if (choice.scored < 1) {
      return absl::InvalidArgumentError(
          "its continuation adds no token to its context's, expected at least 1");
    }
    if (choice.scored >= std::ssize(choice.tokens)) {
      return absl::InvalidArgumentError(
          "its context is empty, and this tokenizer puts nothing before a text: there is nothing "
          "to predict the first token from");
    }
    const int64_t kept = std::max(options_.max_length, choice.scored) + 1;
    const int64_t excess = std::ssize(choice.tokens) - kept;
    if (excess > 0) choice.tokens.erase(choice.tokens.begin(), choice.tokens.begin() + excess);
    return choice;
  }

  const Tokenizer& tokenizer_;
  const TaskOptions& options_;
  Ids leading_;
};

/// Adds the questions of one file, up to the options' number in all.
absl::Status append_questions(const std::filesystem::path& path, const QuestionReader& reader,
                              int64_t max_questions, Task& task) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::UnavailableError(absl::StrCat(path.string(), ": cannot be read"));
  std::string line;
  for (int64_t number = 1; std::getline(file, line); ++number) {
    if (max_questions > 0 && std::ssize(task.questions) == max_questions) return absl::OkStatus();
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    absl::StatusOr<Question> question = reader.read(line);
    if (!question.ok()) {
      return absl::Status(
          question.status().code(),
          absl::StrCat(path.string(), ", line ", number, ": ", question.status().message()));
    }
    task.questions.push_back(*std::move(question));
  }
  if (!file.bad()) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(path.string(), ": cannot be read to its end"));
}

/// The file itself, or a folder's .jsonl files in name order.
absl::StatusOr<std::vector<std::filesystem::path>> question_files(
    const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_regular_file(path, error)) return std::vector{path};
  const absl::StatusOr<std::vector<std::string>> names = folder_files(path);
  if (!names.ok()) return names.status();
  std::vector<std::filesystem::path> files;
  for (const std::string& name : *names) {
    if (!absl::EndsWith(name, ".jsonl")) continue;
    const absl::StatusOr<std::filesystem::path> file = resolve_inside(path, name);
    if (!file.ok()) return file.status();
    files.push_back(*file);
  }
  return files;
}

}  // namespace

absl::StatusOr<Task> load_task(const std::filesystem::path& path, const Tokenizer& tokenizer,
                               const TaskOptions& options) {
  const absl::StatusOr<std::vector<std::filesystem::path>> files = question_files(path);
  if (!files.ok()) return files.status();
  absl::StatusOr<Ids> leading = leading_ids(tokenizer);
  if (!leading.ok()) return leading.status();
  const QuestionReader reader(tokenizer, options, *std::move(leading));
  const std::filesystem::path plain = path.lexically_normal();
  Task task{.name = (plain.has_filename() ? plain : plain.parent_path()).stem().string()};
  for (const std::filesystem::path& file : *files) {
    const absl::Status status = append_questions(file, reader, options.max_questions, task);
    if (!status.ok()) return status;
  }
  if (task.questions.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": holds no question; expected .jsonl, one question a line"));
  }
  return task;
}

}  // namespace qaas
