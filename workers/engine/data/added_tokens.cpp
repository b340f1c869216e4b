#include "workers/engine/data/added_tokens.h"

#include <algorithm>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include "storage/checkpoint/config_fields.h"
#include "storage/checkpoint/strict_json.h"

namespace qaas {
namespace {

using nlohmann::json;

constexpr int64_t kMaxId = int64_t{1} << 24;

/// \w of Unicode's regular expressions.
bool is_word(UChar32 c) {
  return u_hasBinaryProperty(c, UCHAR_ALPHABETIC) || u_hasBinaryProperty(c, UCHAR_JOIN_CONTROL) ||
         (U_GET_GC_MASK(c) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0;
}

bool is_space(UChar32 c) { return u_hasBinaryProperty(c, UCHAR_WHITE_SPACE); }

UChar32 character_before(std::string_view text, size_t position, size_t& start) {
  auto i = static_cast<int32_t>(position);
  UChar32 c = 0;
  U8_PREV(text.data(), 0, i, c);
  start = static_cast<size_t>(i);
  return c;
}

UChar32 character_at(std::string_view text, size_t position, size_t& end) {
  auto i = static_cast<int32_t>(position);
  UChar32 c = 0;
  U8_NEXT(text.data(), i, static_cast<int32_t>(text.size()), c);
  end = static_cast<size_t>(i);
  return c;
}

bool stands_alone(std::string_view text, size_t begin, size_t end) {
  size_t ignored = 0;
  return (begin == 0 || !is_word(character_before(text, begin, ignored))) &&
         (end == text.size() || !is_word(character_at(text, end, ignored)));
}

size_t skip_spaces_back(std::string_view text, size_t position) {
  size_t start = 0;
  while (position > 0 && is_space(character_before(text, position, start))) position = start;
  return position;
}

size_t skip_spaces(std::string_view text, size_t position) {
  size_t end = 0;
  while (position < text.size() && is_space(character_at(text, position, end))) position = end;
  return position;
}

}  // namespace

absl::StatusOr<std::vector<AddedToken>> parse_added_tokens(const json& added_tokens) {
  std::vector<AddedToken> tokens;
  if (added_tokens.is_null()) return tokens;
  if (!added_tokens.is_array()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "field 'added_tokens': is ", describe_json(added_tokens), ", expected an array"));
  }
  for (size_t i = 0; i < added_tokens.size(); ++i) {
    const json& object = added_tokens[i];
    const std::string path = absl::StrCat("added_tokens[", i, "]");
    if (!object.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat("field '", path, "': expected an object"));
    }
    ConfigFields fields(object, path + ".");
    fields.accept_only(
        {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    AddedToken token;
    token.id = static_cast<int32_t>(fields.integer("id", 0, kMaxId - 1));
    token.content = fields.string("content");
    token.special = fields.boolean("special", false);
    token.single_word = fields.boolean("single_word", false);
    token.lstrip = fields.boolean("lstrip", false);
    token.rstrip = fields.boolean("rstrip", false);
    token.normalized = fields.boolean("normalized", !token.special);
    if (token.content.empty()) fields.fail("content", "is empty");
    if (!fields.status().ok()) return fields.status();
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void AddedTokenMatcher::add(std::string_view text, const AddedToken& token) {
  uint32_t node = 0;
  for (const char c : text) {
    const uint64_t edge = uint64_t{node} << 8 | static_cast<unsigned char>(c);
    const auto [it, inserted] =
        edges_.try_emplace(edge, static_cast<uint32_t>(token_of_node_.size()));
    if (inserted) token_of_node_.push_back(-1);
    node = it->second;
  }
  if (token_of_node_[node] >= 0) return;
  token_of_node_[node] = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
  first_byte_[static_cast<unsigned char>(text.front())] = true;
}

AddedTokenMatcher::Match AddedTokenMatcher::longest_at(std::string_view text,
                                                       size_t position) const {
  Match match;
  uint32_t node = 0;
  for (size_t i = position; i < text.size(); ++i) {
    const auto edge = edges_.find(uint64_t{node} << 8 | static_cast<unsigned char>(text[i]));
    if (edge == edges_.end()) break;
    node = edge->second;
    if (token_of_node_[node] >= 0) {
      match = {&tokens_[static_cast<size_t>(token_of_node_[node])], i + 1};
    }
  }
  return match;
}

std::vector<TextSegment> AddedTokenMatcher::cut(std::string_view text) const {
  std::vector<TextSegment> segments;
  size_t done = 0;  // everything before belongs to a segment
  for (size_t position = 0; position < text.size();) {
    if (!first_byte_[static_cast<unsigned char>(text[position])]) {
      ++position;
      continue;
    }
    const auto [token, match_end] = longest_at(text, position);
    if (token == nullptr) {
      ++position;
      continue;
    }
    // A match that is dropped still hides the shorter ones inside it, as in the reference.
    size_t begin = position;
    size_t end = match_end;
    position = match_end;
    if (token->single_word && !stands_alone(text, begin, end)) continue;
    if (token->lstrip) begin = std::max(skip_spaces_back(text, begin), done);
    if (token->rstrip) end = skip_spaces(text, end);
    if (done < begin) segments.push_back({-1, text.substr(done, begin - done)});
    segments.push_back({token->id, text.substr(begin, end - begin)});
    done = end;
  }
  if (done < text.size()) segments.push_back({-1, text.substr(done)});
  return segments;
}

}  // namespace qaas
