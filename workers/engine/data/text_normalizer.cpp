#include "workers/engine/data/text_normalizer.h"

#include <cassert>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>

#include "storage/checkpoint/config_fields.h"
#include "storage/checkpoint/strict_json.h"

namespace qaas {
namespace {

using nlohmann::json;

std::string nfc(const std::string& text) {
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = icu::Normalizer2::getNFCInstance(error);
  std::string result;
  icu::StringByteSink<std::string> sink(&result, static_cast<int32_t>(text.size()));
  normalizer->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())),
                            sink, nullptr, error);
  assert(U_SUCCESS(error));
  return result;
}

}  // namespace

absl::Status TextNormalizer::append(const json& normalizer, const std::string& path) {
  if (normalizer.is_null()) return absl::OkStatus();
  if (!normalizer.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "field '", path, "': is ", describe_json(normalizer), ", expected an object or null"));
  }
  ConfigFields fields(normalizer, path + ".");
  const std::string type = fields.string("type");
  if (type == "NFC") {
    fields.accept_only({"type"});
    steps_.emplace_back(Nfc{});
  } else if (type == "Prepend") {
    fields.accept_only({"type", "prepend"});
    steps_.emplace_back(Prepend{fields.string("prepend")});
  } else if (type == "Replace") {
    fields.accept_only({"type", "pattern", "content"});
    const auto pattern = normalizer.find("pattern");
    const bool fixed = pattern != normalizer.end() && pattern->is_object() &&
                       pattern->size() == 1 && pattern->contains("String") &&
                       (*pattern)["String"].is_string() && (*pattern)["String"] != "";
    if (!fixed) fields.fail("pattern", "accepted: {\"String\": a text that is not empty}");
    steps_.emplace_back(
        Replace{fixed ? (*pattern)["String"].get<std::string>() : "", fields.string("content")});
  } else if (type == "Sequence") {
    fields.accept_only({"type", "normalizers"});
    const auto parts = normalizer.find("normalizers");
    if (parts == normalizer.end() || !parts->is_array()) {
      fields.fail("normalizers", "expected an array");
    } else {
      for (size_t i = 0; i < parts->size(); ++i) {
        auto status = append((*parts)[i], absl::StrCat(path, ".normalizers[", i, "]"));
        fields.absorb(status);
      }
    }
  } else {
    fields.fail("type", absl::StrCat("is '", type, "', accepted: NFC, Prepend, Replace, Sequence"));
  }
  return fields.status();
}

absl::StatusOr<TextNormalizer> TextNormalizer::parse(const json& normalizer) {
  TextNormalizer result;
  if (auto status = result.append(normalizer, "normalizer"); !status.ok()) return status;
  return result;
}

std::string TextNormalizer::normalize(std::string text) const {
  for (const auto& step : steps_) {
    if (std::holds_alternative<Nfc>(step)) {
      text = nfc(text);
    } else if (const auto* prepend = std::get_if<Prepend>(&step)) {
      if (!text.empty()) text.insert(0, prepend->prefix);
    } else {
      const auto& replace = std::get<Replace>(step);
      text = absl::StrReplaceAll(text, {{replace.from, replace.to}});
    }
  }
  return text;
}

}  // namespace qaas
