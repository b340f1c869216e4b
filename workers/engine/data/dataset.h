#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include <absl/status/statusor.h>

#include "workers/engine/data/tokenizer.h"

namespace qaas {

/// Equal windows of token ids, row-major [count, length].
struct TokenWindows {
  int64_t count = 0;
  int64_t length = 0;
  std::vector<int32_t> ids;
};

/// kFirst: from the start, in order; files are read no further than needed. kRandom: different
/// windows of the whole dataset, in the order in which they are drawn.
enum class WindowChoice { kFirst, kRandom };

/// Where a begin-of-sequence token goes. kAsTokenizer is kDocument where the tokenizer puts one in
/// front of a text, else kNone.
enum class BeginOfSequence { kAsTokenizer, kNone, kDocument, kWindow };

/// kConcatenate: documents follow one another and are cut anywhere. kWithinDocument: a window never
/// spans two documents; what does not fill a window is dropped.
enum class Packing { kConcatenate, kWithinDocument };

struct WindowOptions {
  int64_t length = 2048;
  int64_t count = 0;         ///< 0: all there are, at most max_count
  int64_t max_count = 4096;  ///< matters only where count is 0
  WindowChoice choice = WindowChoice::kFirst;
  uint64_t seed = 0;       ///< kRandom only; the same seed draws the same windows everywhere
  int32_t vocab_size = 0;  ///< the model's; every id must be below this
  /// Whether special tokens written out in a text become those tokens.
  Tokenizer::SpecialText special_text = Tokenizer::SpecialText::kPlain;
  BeginOfSequence begin_of_sequence = BeginOfSequence::kAsTokenizer;
  /// Begin-of-sequence of a model whose tokenizer puts nothing in front of a text; -1: it has none.
  int32_t bos_id = -1;
  Packing packing = Packing::kConcatenate;
};

/// Reads a dataset (a folder of .txt, .jsonl with "text", and .ids files in name order, or one such
/// file), tokenizes it and cuts it into non-overlapping windows. Each .txt file and each .jsonl
/// line is one document; end-of-sequence follows it where the tokenizer adds one. An .ids file is
/// one document too, and taken as it is (decimal ids between blanks): nothing is put before it or
/// into its windows. Other files of a folder are left alone. A last partial window is dropped.
/// `tokenizer` may be null where there are only .ids files. kInvalidArgument names the file and
/// line, or says how many windows there are when more were asked for, or none at all, or that there
/// is no begin-of-sequence token to put where `options` wants one.
absl::StatusOr<TokenWindows> load_windows(const std::filesystem::path& dataset,
                                          const Tokenizer* tokenizer, const WindowOptions& options);

}  // namespace qaas
