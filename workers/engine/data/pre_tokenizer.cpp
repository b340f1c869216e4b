#include "workers/engine/data/pre_tokenizer.h"

#include <array>

#include <absl/status/status.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <unicode/utf8.h>

#include "storage/checkpoint/config_fields.h"
#include "storage/checkpoint/strict_json.h"

namespace qaas {
namespace {

using nlohmann::json;

// What ByteLevel cuts by when use_regex is true: GPT-2's pattern.
constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// The printable character for each byte, in UTF-8: 33..126, 161..172 and 174..255 stand for
/// themselves, the other 68 in rising order for U+0100 upward.
std::array<std::string, 256> make_byte_alphabet() {
  std::array<std::string, 256> alphabet;
  int32_t next = 0x100;
  for (int32_t byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int32_t character = itself ? byte : next++;
    char encoded[U8_MAX_LENGTH];
    int32_t length = 0;
    U8_APPEND_UNSAFE(encoded, length, character);
    alphabet[static_cast<size_t>(byte)].assign(encoded, static_cast<size_t>(length));
  }
  return alphabet;
}

std::string spell_bytes(std::string_view text) {
  static const std::array<std::string, 256> kAlphabet = make_byte_alphabet();
  std::string spelled;
  spelled.reserve(text.size() * 2);
  for (const char byte : text) spelled += kAlphabet[static_cast<unsigned char>(byte)];
  return spelled;
}

/// Every `mark` begins a piece.
void split_before(const std::string& text, const std::string& mark,
                  std::vector<std::string_view>& pieces) {
  const std::string_view view = text;
  size_t begin = 0;
  for (size_t found = view.find(mark, 1); found != std::string_view::npos;
       found = view.find(mark, found + mark.size())) {
    pieces.push_back(view.substr(begin, found - begin));
    begin = found;
  }
  pieces.push_back(view.substr(begin));
}

absl::Status split_into(const SplitRegex& regex, const TextPiece& piece,
                        std::vector<TextPiece>& pieces) {
  std::vector<std::string_view> views;
  if (auto status = regex.split(piece.text, views); !status.ok()) return status;
  for (const std::string_view view : views) {
    pieces.push_back({std::string(view), piece.at_start && view.data() == piece.text.data()});
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status PreTokenizer::append(const json& object, const std::string& path) {
  if (object.is_null()) return absl::OkStatus();
  if (!object.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat("field '", path, "': is ", describe_json(object),
                                                   ", expected an object or null"));
  }
  ConfigFields fields(object, path + ".");
  const std::string type = fields.string("type");
  if (!fields.status().ok()) return fields.status();
  if (type == "Split") return append_split(object, path);
  if (type == "ByteLevel") return append_byte_level(object, path);
  if (type == "Metaspace") return append_metaspace(object, path);
  if (type != "Sequence") {
    fields.fail("type",
                absl::StrCat("is '", type, "', accepted: Split, ByteLevel, Metaspace, Sequence"));
    return fields.status();
  }
  fields.accept_only({"type", "pretokenizers"});
  const auto parts = object.find("pretokenizers");
  if (parts == object.end() || !parts->is_array()) {
    fields.fail("pretokenizers", "expected an array");
    return fields.status();
  }
  for (size_t i = 0; i < parts->size(); ++i) {
    fields.absorb(append((*parts)[i], absl::StrCat(path, ".pretokenizers[", i, "]")));
  }
  return fields.status();
}

absl::Status PreTokenizer::append_split(const json& object, const std::string& path) {
  ConfigFields fields(object, path + ".");
  fields.accept_only({"type", "pattern", "behavior", "invert"});
  if (const std::string behavior = fields.string("behavior"); behavior != "Isolated") {
    fields.fail("behavior", absl::StrCat("is '", behavior, "', accepted: Isolated"));
  }
  if (fields.boolean("invert", false)) fields.fail("invert", "is true, accepted: false");
  const auto pattern = object.find("pattern");
  if (pattern == object.end() || !pattern->is_object() || pattern->size() != 1 ||
      !pattern->begin()->is_string() ||
      (pattern->begin().key() != "Regex" && pattern->begin().key() != "String")) {
    fields.fail("pattern", "accepted: {\"Regex\": text} or {\"String\": text}");
  }
  if (!fields.status().ok()) return fields.status();
  const auto& text = pattern->begin()->get_ref<const std::string&>();
  auto regex = pattern->begin().key() == "Regex" ? SplitRegex::compile(text)
                                                 : SplitRegex::compile_literal(text);
  if (!regex.ok()) {
    fields.fail("pattern", std::string(regex.status().message()));
    return fields.status();
  }
  steps_.emplace_back(Split{*std::move(regex)});
  return absl::OkStatus();
}

absl::Status PreTokenizer::append_byte_level(const json& object, const std::string& path) {
  ConfigFields fields(object, path + ".");
  fields.accept_only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  const bool add_prefix_space = fields.boolean("add_prefix_space", true);
  const bool use_regex = fields.boolean("use_regex", true);
  if (!fields.status().ok()) return fields.status();
  for (const Step& step : steps_) {
    if (std::holds_alternative<ByteLevel>(step)) {
      fields.fail("type", "is ByteLevel for the second time");
      return fields.status();
    }
  }
  ByteLevel step{.add_prefix_space = add_prefix_space};
  if (use_regex) {
    auto regex = SplitRegex::compile(kGpt2Pattern);
    if (!regex.ok()) return regex.status();
    step.regex = *std::move(regex);
  }
  steps_.emplace_back(std::move(step));
  return absl::OkStatus();
}

absl::Status PreTokenizer::append_metaspace(const json& object, const std::string& path) {
  ConfigFields fields(object, path + ".");
  fields.accept_only(
      {"type", "replacement", "str_rep", "add_prefix_space", "prepend_scheme", "split"});
  Metaspace step;
  step.replacement = fields.string("replacement");
  // Older files say add_prefix_space alone, for "always" or "never".
  const bool add_prefix_space = fields.boolean("add_prefix_space", true);
  const std::string scheme = fields.string("prepend_scheme", add_prefix_space ? "always" : "never");
  step.split = fields.boolean("split", true);
  if (step.replacement.empty()) fields.fail("replacement", "is empty");
  if (scheme == "always") {
    step.prepend = Metaspace::Prepend::kAlways;
  } else if (scheme == "first") {
    step.prepend = Metaspace::Prepend::kFirst;
  } else if (scheme == "never") {
    step.prepend = Metaspace::Prepend::kNever;
  } else {
    fields.fail("prepend_scheme",
                absl::StrCat("is '", scheme, "', accepted: always, first, never"));
  }
  if (!add_prefix_space && scheme != "never") {
    fields.fail("add_prefix_space", absl::StrCat("is false, but prepend_scheme is ", scheme));
  }
  if (!fields.status().ok()) return fields.status();
  steps_.emplace_back(std::move(step));
  return absl::OkStatus();
}

absl::StatusOr<PreTokenizer> PreTokenizer::parse(const json& pre_tokenizer) {
  PreTokenizer result;
  if (auto status = result.append(pre_tokenizer, "pre_tokenizer"); !status.ok()) return status;
  return result;
}

absl::Status PreTokenizer::apply(const Split& step, TextPiece piece,
                                 std::vector<TextPiece>& pieces) {
  return split_into(step.regex, piece, pieces);
}

absl::Status PreTokenizer::apply(const ByteLevel& step, TextPiece piece,
                                 std::vector<TextPiece>& pieces) {
  if (step.add_prefix_space && piece.text.front() != ' ')
    piece.text.insert(piece.text.begin(), ' ');
  const size_t first = pieces.size();
  if (step.regex) {
    if (auto status = split_into(*step.regex, piece, pieces); !status.ok()) return status;
  } else {
    pieces.push_back(std::move(piece));
  }
  for (size_t i = first; i < pieces.size(); ++i) pieces[i].text = spell_bytes(pieces[i].text);
  return absl::OkStatus();
}

absl::Status PreTokenizer::apply(const Metaspace& step, TextPiece piece,
                                 std::vector<TextPiece>& pieces) {
  piece.text = absl::StrReplaceAll(piece.text, {{" ", step.replacement}});
  const bool prepend = step.prepend == Metaspace::Prepend::kAlways ||
                       (step.prepend == Metaspace::Prepend::kFirst && piece.at_start);
  if (prepend && !absl::StartsWith(piece.text, step.replacement)) {
    piece.text.insert(0, step.replacement);
  }
  if (!step.split) {
    pieces.push_back(std::move(piece));
    return absl::OkStatus();
  }
  std::vector<std::string_view> views;
  split_before(piece.text, step.replacement, views);
  for (const std::string_view view : views) {
    pieces.push_back({std::string(view), piece.at_start && view.data() == piece.text.data()});
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TextPiece>> PreTokenizer::cut(TextPiece piece) const {
  std::vector<TextPiece> pieces;
  pieces.push_back(std::move(piece));
  for (const Step& step : steps_) {
    std::vector<TextPiece> finer;
    for (TextPiece& coarse : pieces) {
      const auto status =
          std::visit([&](const auto& kind) { return apply(kind, std::move(coarse), finer); }, step);
      if (!status.ok()) return status;
    }
    pieces = std::move(finer);
  }
  return pieces;
}

}  // namespace qaas
