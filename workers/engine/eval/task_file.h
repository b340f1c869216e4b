#pragma once

#include <cstdint>
#include <filesystem>

#include <absl/status/statusor.h>

#include "workers/engine/data/tokenizer.h"
#include "workers/engine/eval/multiple_choice.h"

namespace qaas {

struct TaskOptions {
  /// Positions the model has. A longer question loses tokens at its beginning (begin-of-sequence
  /// included), as in lm-evaluation-harness. A continuation that alone is longer, where the harness
  /// gives up, is scored in full after the one token before it: rotary positions go on.
  int64_t max_length = 2048;
  int64_t max_questions = 0;  ///< the first of the file; 0: all
  int32_t vocab_size = 0;     ///< the model's; every id must be below this
};

/// Reads a multiple-choice file, or a folder's .jsonl files in name order: one JSON object a line
/// in the formats of parse_question; and tokenizes it. Blanks at the end of a context move to its
/// continuation; the continuation's tokens are those of context and continuation together beyond as
/// many as the context alone has; what the tokenizer puts before a text (begin-of-sequence) stands
/// before the context. The task is called after the file or folder, without ending.
/// kInvalidArgument names the file and the line.
absl::StatusOr<Task> load_task(const std::filesystem::path& path, const Tokenizer& tokenizer,
                               const TaskOptions& options);

}  // namespace qaas
