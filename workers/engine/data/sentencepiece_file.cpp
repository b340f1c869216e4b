#include "workers/engine/data/sentencepiece_file.h"

#include <cstring>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include "storage/checkpoint/strict_json.h"

namespace qaas {
namespace {

/// One field of a protobuf message: `number` of a varint or of the bits of a float, `bytes` of a
/// string or message.
struct Field {
  uint64_t tag = 0;
  uint64_t number = 0;
  std::string_view bytes;
};

/// Walks the fields of a message in the wire format.
class FieldReader {
 public:
  explicit FieldReader(std::string_view bytes) : bytes_(bytes) {}

  bool ok() const { return ok_; }

  /// False at the end, or when the bytes are malformed: see ok().
  bool next(Field& field) {
    if (!ok_ || bytes_.empty()) return false;
    const uint64_t key = varint();
    field = {.tag = key >> 3};
    switch (key & 7) {
      case 0:
        field.number = varint();
        break;
      case 1:
        take(8);
        break;
      case 2:
        field.bytes = take(varint());
        break;
      case 5: {
        const std::string_view raw = take(4);
        for (size_t i = raw.size(); i-- > 0;) {
          field.number = field.number << 8 | static_cast<unsigned char>(raw[i]);
        }
        break;
      }
      default:
        ok_ = false;
    }
    if (field.tag == 0) ok_ = false;
    return ok_;
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const std::string_view byte = take(1);
      if (!ok_) return 0;
      value |= static_cast<uint64_t>(byte.front() & 0x7F) << shift;
      if ((byte.front() & 0x80) == 0) return value;
    }
    ok_ = false;
    return 0;
  }

  std::string_view take(uint64_t count) {
    if (!ok_ || count > bytes_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }

  std::string_view bytes_;
  bool ok_ = true;
};

bool read_piece(std::string_view bytes, SentencePieceFile::Piece& piece) {
  FieldReader reader(bytes);
  for (Field field; reader.next(field);) {
    if (field.tag == 1) piece.text = field.bytes;
    if (field.tag == 2) {
      const auto bits = static_cast<uint32_t>(field.number);
      std::memcpy(&piece.score, &bits, sizeof(bits));
    }
    if (field.tag == 3) piece.type = static_cast<SentencePieceFile::PieceType>(field.number);
  }
  return reader.ok() && is_valid_utf8(piece.text) && !piece.text.empty();
}

bool read_trainer(std::string_view bytes, SentencePieceFile& file) {
  FieldReader reader(bytes);
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case 3:
        file.model_type = static_cast<SentencePieceFile::ModelType>(field.number);
        break;
      case 24:
        file.treat_whitespace_as_suffix = field.number != 0;
        break;
      case 35:
        file.byte_fallback = field.number != 0;
        break;
      case 41:
        file.bos_id = static_cast<int32_t>(field.number);
        break;
      case 42:
        file.eos_id = static_cast<int32_t>(field.number);
        break;
      default:
        break;
    }
  }
  return reader.ok();
}

bool read_normalizer(std::string_view bytes, SentencePieceFile& file) {
  FieldReader reader(bytes);
  for (Field field; reader.next(field);) {
    if (field.tag == 1) file.normalizer = field.bytes;
    if (field.tag == 2) file.has_character_map = !field.bytes.empty();
    if (field.tag == 3) file.add_dummy_prefix = field.number != 0;
    if (field.tag == 4) file.remove_extra_whitespaces = field.number != 0;
    if (field.tag == 5) file.escape_whitespaces = field.number != 0;
  }
  return reader.ok();
}

}  // namespace

absl::StatusOr<SentencePieceFile> parse_sentencepiece_file(std::string_view bytes) {
  SentencePieceFile file;
  FieldReader reader(bytes);
  bool parts_ok = true;
  for (Field field; parts_ok && reader.next(field);) {
    if (field.tag == 1) parts_ok = read_piece(field.bytes, file.pieces.emplace_back());
    if (field.tag == 2) parts_ok = read_trainer(field.bytes, file);
    if (field.tag == 3) parts_ok = read_normalizer(field.bytes, file);
  }
  if (!parts_ok || !reader.ok() || file.pieces.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a sentencepiece model: malformed after ", file.pieces.size(), " pieces"));
  }
  return file;
}

}  // namespace qaas
