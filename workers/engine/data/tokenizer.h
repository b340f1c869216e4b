#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "workers/engine/data/special_ids.h"

namespace qaas {

/// Text to token ids, as the model's own tokenizer does it. Thread-safe once made.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  enum class SpecialTokens { kAdd, kOmit };
  /// What the text of a special token inside a text ("<|im_end|>") stands for: that token, or the
  /// characters it is written with.
  enum class SpecialText { kParse, kPlain };
  /// Ids of `text` (UTF-8). kAdd applies the post-processor (usually: begin-of-sequence first).
  /// kInvalidArgument if the text is not valid UTF-8 or has a character the vocabulary cannot
  /// spell.
  virtual absl::StatusOr<std::vector<int32_t>> encode(std::string_view text, SpecialTokens special,
                                                      SpecialText inside) const = 0;
  /// The same as published tokenizers do by default: kParse.
  absl::StatusOr<std::vector<int32_t>> encode(std::string_view text, SpecialTokens special) const {
    return encode(text, special, SpecialText::kParse);
  }
  /// What kAdd puts around a text.
  virtual const SpecialIds& around() const = 0;
  /// Highest id it can produce, plus one.
  virtual int32_t size() const = 0;
};

/// The tokenizer of a model folder: tokenizer.json (byte-level BPE, byte-fallback BPE) where
/// present, else tokenizer.model (sentencepiece BPE). Where neither says what surrounds a text,
/// tokenizer_config.json's add_bos_token and add_eos_token do. kInvalidArgument names the file and
/// the part that is not understood; kNotFound when the folder has neither.
absl::StatusOr<std::unique_ptr<Tokenizer>> load_tokenizer(const std::filesystem::path& folder);

}  // namespace qaas
