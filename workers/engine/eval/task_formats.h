#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <nlohmann/json.hpp>

namespace qaas {

/// A choice as text: the model is asked how likely `continuation` is after `context`.
struct ChoiceText {
  std::string context;
  std::string continuation;  ///< with the blank that separates it from the context
  std::string answer;        ///< what acc_norm takes the length of
};

struct QuestionText {
  std::vector<ChoiceText> choices;
  int64_t gold = 0;  ///< index of the right one
};

/// Reads one line of a multiple-choice file. What it is follows from its fields; prompts are those
/// of lm-evaluation-harness, without examples, and a single blank separates context from choice:
///
/// | fields                                       | context                                      |
/// |----------------------------------------------|----------------------------------------------|
/// | query, choices, gold                         | query                                        |
/// | context_options, continuation, gold          | each option, before one continuation         |
/// | sentence, option1, option2, answer           | WinoGrande: sentence up to "_" and an option |
/// | endings, label, ctx_a, ctx_b (or ctx)        | HellaSwag: "activity: ctx", cleaned          |
/// | passage, question, answer (or label)         | BoolQ: choices "no", "yes"                   |
/// | question, choices.text, choices.label, answerKey | ARC: "Question: ...\nAnswer:"            |
/// | goal, sol1, sol2, label                      | PIQA: "Question: ...\nAnswer:"               |
///
/// Further fields are ignored. kInvalidArgument names the field and what was found, or lists the
/// accepted formats.
absl::StatusOr<QuestionText> parse_question(const nlohmann::json& line);

}  // namespace qaas
