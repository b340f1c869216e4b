#pragma once

#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>

#include <absl/status/statusor.h>

#include "workers/engine/eval/language_model_score.h"

namespace qaas {

/// What to score, and on what.
struct EvaluateOptions {
  std::filesystem::path model;  ///< a model folder or an artifact folder
  std::filesystem::path evaluation;
  std::filesystem::path original;  ///< empty: no divergence
  int64_t sequence_length = 0;     ///< 0: 2048, or the model's maximum where smaller
  int64_t samples = 0;             ///< 0: all there are, at most 256
};

struct FolderScore {
  int64_t windows = 0;
  int64_t sequence_length = 0;
  LanguageModelScore score;
  bool has_divergence = false;

  /// "windows 64 x 256  loss 0.930012  perplexity 2.5345  kl 0.0000", ending in a newline.
  std::string to_text() const;
};

/// Scores a folder as LanguageModelScore describes. Fails as the folder readers do.
absl::StatusOr<FolderScore> evaluate_folder(const EvaluateOptions& options, std::stop_token stop);

}  // namespace qaas
