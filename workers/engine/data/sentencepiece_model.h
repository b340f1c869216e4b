#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qaas {

/// A sentencepiece tokenizer.model. Knows nothing of absl: sentencepiece's header declares an
/// absl::string_view of its own, so no file can include both. Thread-safe once loaded.
class SentencePieceModel {
 public:
  SentencePieceModel();
  ~SentencePieceModel();
  SentencePieceModel(SentencePieceModel&&) noexcept;

  /// `serialized`: the bytes of a tokenizer.model. Returns what is wrong, or nothing on success.
  std::optional<std::string> load(const std::string& serialized);
  /// Appends the ids of `text`. Returns what is wrong, or nothing on success.
  std::optional<std::string> encode(const std::string& text, std::vector<int32_t>& ids) const;

  int32_t size() const;
  int32_t bos_id() const;  ///< -1: none
  int32_t eos_id() const;  ///< -1: none

 private:
  struct Processor;
  std::unique_ptr<Processor> processor_;
};

}  // namespace qaas
