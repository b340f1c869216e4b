#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>
#include <nlohmann/json.hpp>

#include "workers/engine/data/added_tokens.h"
#include "workers/engine/data/bpe_model.h"
#include "workers/engine/data/pre_tokenizer.h"
#include "workers/engine/data/special_ids.h"
#include "workers/engine/data/text_normalizer.h"
#include "workers/engine/data/tokenizer.h"

namespace qaas {

/// A tokenizer.json with a BPE model. Encodes in the order of the tokenizers library: cut the raw
/// text at added tokens that are not normalized; normalize each stretch between them and cut it at
/// those that are; pre-tokenize; merge; put the template's tokens around. "truncation", "padding"
/// and "decoder" are read over: they do not matter to training data.
class JsonTokenizer final : public Tokenizer {
 public:
  /// `config` is the folder's tokenizer_config.json, or an empty object: it decides about
  /// begin-of-sequence only where the tokenizer.json has no template. kInvalidArgument names the
  /// field.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> parse(std::string_view text,
                                                          const nlohmann::json& config);

  absl::StatusOr<std::vector<int32_t>> encode(std::string_view text, SpecialTokens special,
                                              SpecialText inside) const override;
  const SpecialIds& around() const override { return around_; }
  int32_t size() const override { return size_; }

 private:
  /// Added tokens to look for: in the raw text, and in the normalized one.
  struct Matchers {
    AddedTokenMatcher raw, normalized;
  };

  JsonTokenizer(TextNormalizer normalizer, PreTokenizer pre_tokenizer, BpeModel model)
      : normalizer_(std::move(normalizer)),
        pre_tokenizer_(std::move(pre_tokenizer)),
        model_(std::move(model)) {}

  absl::Status add_tokens(const std::vector<AddedToken>& tokens);
  absl::Status encode_raw(std::string_view text, bool at_start,
                          const AddedTokenMatcher& normalized_tokens,
                          std::vector<int32_t>& ids) const;
  absl::Status encode_normalized(std::string_view text, bool at_start,
                                 std::vector<int32_t>& ids) const;

  TextNormalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  BpeModel model_;
  Matchers all_tokens_;
  Matchers plain_tokens_;  // those that are not special
  SpecialIds around_;
  int32_t size_ = 0;
};

}  // namespace qaas
