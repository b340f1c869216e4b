#pragma once

#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "workers/engine/eval/evaluate_model.h"

namespace qaas {

/// What to score, and on what: at least one text or task.
struct EvaluateOptions {
  std::filesystem::path model;               ///< a model folder or an artifact folder
  std::vector<std::filesystem::path> texts;  ///< dataset folders or files
  std::vector<std::filesystem::path> tasks;  ///< multiple-choice files: see parse_question
  std::filesystem::path original;            ///< empty: nothing is compared
  int64_t sequence_length = 0;               ///< of texts; 0: 2048, or the model's maximum if less
  int64_t samples = 0;                       ///< windows a text; 0: all there are, at most 256
  int64_t questions = 0;                     ///< first questions a task; 0: all
};

/// What evaluate_folder measured, and the original on the same where there is one.
struct FolderScore {
  struct Text {
    std::string name;  ///< of the folder or file
    int64_t windows = 0;
    int64_t sequence_length = 0;
    LanguageModelScore model;
    std::optional<LanguageModelScore> original;
  };
  struct Choices {
    TaskScore model;
    std::optional<TaskScore> original;
  };
  std::vector<Text> texts;
  std::vector<Choices> tasks;

  /// For one text alone one line, "windows 64 x 256  loss 0.930012  perplexity 2.5345" and with an
  /// original "  kl 0.000000  top1 1.0000  difference 0.000000 +- 0.000000"; else a table of texts
  /// and one of tasks. Ends in a newline.
  std::string to_text() const;

  /// The same as one JSON object of "texts" and "tasks", figures unrounded; ends in a newline.
  std::string to_json() const;
};

/// Scores a folder on every text and task, block by block over all of them. kInvalidArgument where
/// there is neither text nor task, or as the readers of folders, datasets and tasks say.
absl::StatusOr<FolderScore> evaluate_folder(const EvaluateOptions& options, std::stop_token stop);

}  // namespace qaas
