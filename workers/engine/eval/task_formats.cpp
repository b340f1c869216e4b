#include "workers/engine/eval/task_formats.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/str_replace.h>
#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include "storage/checkpoint/message_text.h"
#include "storage/checkpoint/strict_json.h"
#include "workers/engine/eval/white_space.h"

namespace qaas {
namespace {

using nlohmann::json;

absl::Status expected(const std::string& field, const std::string& what, const json& found) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", field, "' is ", describe_json(found), ", expected ", what));
}

bool has_all(const json& line, std::initializer_list<const char*> fields) {
  return std::all_of(fields.begin(), fields.end(),
                     [&](const char* field) { return line.contains(field); });
}

/// Reads a line's fields and keeps the first thing that was wrong.
class Fields {
 public:
  explicit Fields(const json& line) : line_(line) {}

  const absl::Status& status() const { return status_; }

  std::string text(const char* field) { return text_of(field, line_.at(field)); }

  std::vector<std::string> texts(const char* field) { return texts_of(field, line_.at(field)); }

  /// The strings of `field`.`inner`.
  std::vector<std::string> texts(const char* field, const char* inner) {
    const json& outer = line_.at(field);
    const std::string name = absl::StrCat(field, ".", inner);
    if (outer.is_object() && outer.contains(inner)) return texts_of(name, outer.at(inner));
    fail(expected(field, absl::StrCat("an object with '", inner, "'"), outer));
    return {};
  }

  /// An index below `count`, as a number or as a decimal in a string.
  int64_t index(const char* field, size_t count) {
    const json& value = line_.at(field);
    int64_t number = -1;
    if (value.is_number_integer()) {
      number = value.get<int64_t>();
    } else if (value.is_string()) {
      const std::string& digits = value.get_ref<const std::string&>();
      const auto [end, error] =
          std::from_chars(digits.data(), digits.data() + digits.size(), number);
      if (error != std::errc() || end != digits.data() + digits.size()) number = -1;
    }
    if (number < 0 || number >= static_cast<int64_t>(count)) {
      fail(expected(field, absl::StrCat("the index of a choice, 0 to ", count - 1), value));
      return 0;
    }
    return number;
  }

  void fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

 private:
  std::string text_of(const std::string& name, const json& value) {
    if (value.is_string()) return value.get<std::string>();
    fail(expected(name, "a string", value));
    return {};
  }
  std::vector<std::string> texts_of(const std::string& name, const json& value) {
    std::vector<std::string> texts;
    if (!value.is_array() || value.size() < 2) {
      fail(expected(name, "an array of at least two strings", value));
      return {"", ""};
    }
    for (size_t i = 0; i < value.size(); ++i) {
      texts.push_back(text_of(absl::StrCat(name, "[", i, "]"), value[i]));
    }
    return texts;
  }

  const json& line_;
  absl::Status status_;
};

/// One context before every choice.
QuestionText with_choices(const std::string& context, const std::vector<std::string>& choices,
                          int64_t gold) {
  QuestionText question{.gold = gold};
  for (const std::string& choice : choices) {
    question.choices.push_back(
        {.context = context, .continuation = absl::StrCat(" ", choice), .answer = choice});
  }
  return question;
}

/// One continuation after every context.
QuestionText with_contexts(const std::vector<std::string>& contexts,
                           const std::string& continuation, int64_t gold) {
  QuestionText question{.gold = gold};
  for (const std::string& context : contexts) {
    question.choices.push_back({.context = context,
                                .continuation = absl::StrCat(" ", continuation),
                                .answer = continuation});
  }
  return question;
}

QuestionText read_generic(const json&, Fields& fields) {
  const std::vector<std::string> choices = fields.texts("choices");
  return with_choices(fields.text("query"), choices, fields.index("gold", choices.size()));
}

QuestionText read_context_options(const json&, Fields& fields) {
  const std::vector<std::string> contexts = fields.texts("context_options");
  return with_contexts(contexts, fields.text("continuation"),
                       fields.index("gold", contexts.size()));
}

QuestionText read_winogrande(const json& line, Fields& fields) {
  const std::string sentence = fields.text("sentence"), answer = fields.text("answer");
  const size_t gap = sentence.find('_');
  if (gap == std::string::npos) {
    fields.fail(expected("sentence", "a text with the gap '_'", line.at("sentence")));
    return {};
  }
  if (answer != "1" && answer != "2") {
    fields.fail(expected("answer", "\"1\" or \"2\"", line.at("answer")));
  }
  const std::string before = sentence.substr(0, gap);
  return with_contexts({before + fields.text("option1"), before + fields.text("option2")},
                       std::string(without_outer_space(std::string_view(sentence).substr(gap + 1))),
                       answer == "2" ? 1 : 0);
}

/// First letter in title case, the others in lower case: Python's str.capitalize.
std::string capitalized(const std::string& text) {
  const icu::UnicodeString units = icu::UnicodeString::fromUTF8(text);
  if (units.isEmpty()) return text;
  icu::UnicodeString rest(units, units.moveIndex32(0, 1));
  icu::UnicodeString result(u_totitle(units.char32At(0)));
  result.append(rest.toLower(icu::Locale::getRoot()));
  std::string utf8;
  return result.toUTF8String(utf8);
}

/// The harness's cleaning of HellaSwag: "[title]" of the WikiHow half becomes a full stop, other
/// brackets (on one line) go, and two blanks become one, once.
std::string cleaned(const std::string& text) {
  const std::string titled =
      absl::StrReplaceAll(std::string(without_outer_space(text)), {{" [title]", ". "}});
  std::string kept;
  for (size_t at = 0; at < titled.size();) {
    if (titled[at] == '[') {
      const size_t end = titled.find_first_of("]\n", at);
      if (end != std::string::npos && titled[end] == ']') {
        at = end + 1;
        continue;
      }
    }
    kept += titled[at++];
  }
  return absl::StrReplaceAll(kept, {{"  ", " "}});
}

QuestionText read_hellaswag(const json& line, Fields& fields) {
  std::string context =
      has_all(line, {"ctx_a", "ctx_b"})
          ? absl::StrCat(fields.text("ctx_a"), " ", capitalized(fields.text("ctx_b")))
          : fields.text("ctx");
  if (line.contains("activity_label")) {
    context = absl::StrCat(fields.text("activity_label"), ": ", context);
  }
  std::vector<std::string> endings = fields.texts("endings");
  for (std::string& ending : endings) ending = cleaned(ending);
  return with_choices(cleaned(context), endings, fields.index("label", endings.size()));
}

QuestionText read_boolq(const json& line, Fields& fields) {
  const char* field = line.contains("answer") ? "answer" : "label";
  const json& answer = line.at(field);
  const int64_t gold = answer.is_boolean() ? (answer.get<bool>() ? 1 : 0) : fields.index(field, 2);
  return with_choices(
      absl::StrCat(fields.text("passage"), "\nQuestion: ", fields.text("question"), "?\nAnswer:"),
      {"no", "yes"}, gold);
}

QuestionText read_arc(const json& line, Fields& fields) {
  const std::vector<std::string> texts = fields.texts("choices", "text");
  const std::vector<std::string> labels = fields.texts("choices", "label");
  const auto gold = std::find(labels.begin(), labels.end(), fields.text("answerKey"));
  if (labels.size() != texts.size()) {
    fields.fail(absl::InvalidArgumentError(absl::StrCat("'choices.label' has ", labels.size(),
                                                        " entries, 'choices.text' has ",
                                                        texts.size(), "; expected as many")));
  } else if (gold == labels.end()) {
    fields.fail(expected("answerKey", "one of choices.label", line.at("answerKey")));
  }
  return with_choices(absl::StrCat("Question: ", fields.text("question"), "\nAnswer:"), texts,
                      gold - labels.begin());
}

QuestionText read_piqa(const json&, Fields& fields) {
  return with_choices(absl::StrCat("Question: ", fields.text("goal"), "\nAnswer:"),
                      {fields.text("sol1"), fields.text("sol2")}, fields.index("label", 2));
}

using Reader = QuestionText (*)(const json& line, Fields& fields);

Reader reader_of(const json& line) {
  if (has_all(line, {"query", "choices", "gold"})) return read_generic;
  if (has_all(line, {"context_options", "continuation", "gold"})) return read_context_options;
  if (has_all(line, {"sentence", "option1", "option2", "answer"})) return read_winogrande;
  if (has_all(line, {"endings", "label", "ctx_a", "ctx_b"}) ||
      has_all(line, {"endings", "label", "ctx"})) {
    return read_hellaswag;
  }
  if (has_all(line, {"passage", "question", "answer"}) ||
      has_all(line, {"passage", "question", "label"})) {
    return read_boolq;
  }
  if (has_all(line, {"question", "choices", "answerKey"})) return read_arc;
  if (has_all(line, {"goal", "sol1", "sol2", "label"})) return read_piqa;
  return nullptr;
}

}  // namespace

absl::StatusOr<QuestionText> parse_question(const json& line) {
  const Reader reader = line.is_object() ? reader_of(line) : nullptr;
  if (reader == nullptr) {
    std::vector<std::string> names;
    if (line.is_object()) {
      for (const auto& [name, value] : line.items()) names.push_back(printable(name));
    }
    return absl::InvalidArgumentError(absl::StrCat(
        line.is_object() ? absl::StrCat("an object with the fields ", absl::StrJoin(names, ", "))
                         : describe_json(line),
        "; expected query, choices, gold; context_options, continuation, gold; sentence, option1, "
        "option2, answer (WinoGrande); ctx_a, ctx_b, endings, label (HellaSwag); passage, "
        "question, answer (BoolQ); question, choices, answerKey (ARC); or goal, sol1, sol2, label "
        "(PIQA)"));
  }
  Fields fields(line);
  QuestionText question = reader(line, fields);
  if (!fields.status().ok()) return fields.status();
  return question;
}

}  // namespace qaas
