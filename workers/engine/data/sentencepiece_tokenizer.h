#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "workers/engine/data/added_tokens.h"
#include "workers/engine/data/bpe_model.h"
#include "workers/engine/data/special_ids.h"
#include "workers/engine/data/tokenizer.h"

namespace qaas {

/// A tokenizer.model of sentencepiece, type BPE with the identity normalizer (Llama, Mistral).
/// User-defined pieces are looked for in every text. Control pieces such as "<s>" are its special
/// tokens; a stretch between two of them is encoded as a text of its own.
class SentencePieceTokenizer final : public Tokenizer {
 public:
  /// `config` is the folder's tokenizer_config.json, or an empty object. Begin-of-sequence is added
  /// unless its add_bos_token is false, end-of-sequence only where add_eos_token is true, as
  /// Llama's tokenizer class does. kInvalidArgument names what is not supported.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> parse(std::string_view bytes,
                                                          const nlohmann::json& config);

  absl::StatusOr<std::vector<int32_t>> encode(std::string_view text, SpecialTokens special,
                                              SpecialText inside) const override;
  const SpecialIds& around() const override { return around_; }
  int32_t size() const override { return size_; }

 private:
  explicit SentencePieceTokenizer(BpeModel model) : model_(std::move(model)) {}

  absl::Status encode_stretch(std::string_view text, std::vector<int32_t>& ids) const;

  BpeModel model_;
  AddedTokenMatcher user_defined_;
  AddedTokenMatcher control_;
  SpecialIds around_;
  int32_t size_ = 0;
  bool add_dummy_prefix_ = true;
};

}  // namespace qaas
