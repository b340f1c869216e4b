#include "workers/engine/data/sentencepiece_model.h"

#include <sentencepiece_processor.h>

namespace qaas {

struct SentencePieceModel::Processor {
  sentencepiece::SentencePieceProcessor pieces;
};

SentencePieceModel::SentencePieceModel() : processor_(std::make_unique<Processor>()) {}
SentencePieceModel::~SentencePieceModel() = default;
SentencePieceModel::SentencePieceModel(SentencePieceModel&&) noexcept = default;

std::optional<std::string> SentencePieceModel::load(const std::string& serialized) {
  const auto status = processor_->pieces.LoadFromSerializedProto(serialized);
  if (status.ok()) return std::nullopt;
  return status.ToString();
}

std::optional<std::string> SentencePieceModel::encode(const std::string& text,
                                                      std::vector<int32_t>& ids) const {
  std::vector<int> encoded;
  const auto status = processor_->pieces.Encode(text, &encoded);
  if (!status.ok()) return status.ToString();
  ids.insert(ids.end(), encoded.begin(), encoded.end());
  return std::nullopt;
}

int32_t SentencePieceModel::size() const { return processor_->pieces.GetPieceSize(); }
int32_t SentencePieceModel::bos_id() const { return processor_->pieces.bos_id(); }
int32_t SentencePieceModel::eos_id() const { return processor_->pieces.eos_id(); }

}  // namespace qaas
