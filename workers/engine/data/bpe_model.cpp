#include "workers/engine/data/bpe_model.h"

#include <algorithm>
#include <optional>
#include <queue>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <unicode/utf8.h>

#include "storage/checkpoint/config_fields.h"
#include "storage/checkpoint/strict_json.h"

namespace qaas {
namespace {

using nlohmann::json;

constexpr int64_t kMaxId = int64_t{1} << 24;

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

/// The two halves of an entry of "merges": "a b", cut at the first blank, or ["a", "b"].
std::optional<std::pair<std::string_view, std::string_view>> halves_of(const json& entry) {
  if (entry.is_string()) {
    const std::string_view text = entry.get_ref<const std::string&>();
    const size_t blank = text.find(' ');
    if (blank == std::string_view::npos) return std::nullopt;
    return {{text.substr(0, blank), text.substr(blank + 1)}};
  }
  if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_string()) {
    return std::nullopt;
  }
  return {{entry[0].get_ref<const std::string&>(), entry[1].get_ref<const std::string&>()}};
}

}  // namespace

absl::StatusOr<BpeModel> BpeModel::parse(const json& model) {
  if (!model.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("field 'model': is ", describe_json(model), ", expected an object"));
  }
  ConfigFields fields(model, "model.");
  if (const std::string type = fields.string("type", "BPE"); type != "BPE") {
    fields.fail("type", absl::StrCat("is '", type, "', accepted: BPE"));
    return fields.status();
  }
  fields.accept_only({"type", "dropout", "unk_token", "continuing_subword_prefix",
                      "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges", "vocab",
                      "merges"});
  if (fields.number("dropout", 0, 1, 0) != 0) fields.fail("dropout", "accepted: null or 0");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (fields.string(affix, "") != "") fields.fail(affix, "accepted: null or empty");
  }
  for (const char* field : {"vocab", "merges"}) {
    if (!fields.has(field)) fields.fail(field, "is missing");
  }
  BpeModel result;
  result.fuse_unknown_ = fields.boolean("fuse_unk", false);
  result.ignore_merges_ = fields.boolean("ignore_merges", false);
  const bool byte_fallback = fields.boolean("byte_fallback", false);
  const std::string unknown = fields.string("unk_token", "");
  if (!fields.status().ok()) return fields.status();

  if (auto status = result.read_vocabulary(model["vocab"]); !status.ok()) return status;
  if (auto status = result.read_merges(model["merges"]); !status.ok()) return status;
  if (byte_fallback) {
    for (int byte = 0; byte < 256; ++byte) {
      result.id_of_byte_.push_back(result.id_of(absl::StrFormat("<0x%02X>", byte)));
    }
  }
  if (!unknown.empty()) {
    result.unknown_id_ = result.id_of(unknown);
    if (result.unknown_id_ < 0) {
      fields.fail("unk_token", absl::StrCat("is '", unknown, "', which the vocabulary lacks"));
    }
  }
  if (!fields.status().ok()) return fields.status();
  return result;
}

absl::Status BpeModel::read_vocabulary(const json& vocabulary) {
  if (!vocabulary.is_object() || vocabulary.empty()) {
    return absl::InvalidArgumentError("field 'model.vocab': expected an object that is not empty");
  }
  vocabulary_.reserve(vocabulary.size());
  for (const auto& [token, value] : vocabulary.items()) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= static_cast<uint64_t>(kMaxId)) {
      return absl::InvalidArgumentError(absl::StrCat("field 'model.vocab': token '", token,
                                                     "' has ", describe_json(value),
                                                     ", expected an id below ", kMaxId));
    }
    const int32_t id = value.get<int32_t>();
    insert(token, id);
    highest_id_ = std::max(highest_id_, id);
  }
  return absl::OkStatus();
}

bool BpeModel::insert(const std::string& token, int32_t id) {
  if (!vocabulary_.emplace(token, id).second) return false;
  if (token.empty()) return true;
  int32_t length = 0;
  UChar32 character = 0;
  U8_NEXT(token.data(), length, static_cast<int32_t>(token.size()), character);
  if (static_cast<size_t>(length) == token.size()) id_of_character_[character] = id;
  return true;
}

void BpeModel::add_merge(int32_t left, int32_t right, Merge merge) {
  merges_[pair_key(left, right)] = merge;
}

absl::Status BpeModel::read_merges(const json& merges) {
  if (!merges.is_array()) {
    return absl::InvalidArgumentError("field 'model.merges': expected an array");
  }
  merges_.reserve(merges.size());
  uint32_t rank = 0;
  for (const json& entry : merges) {
    const auto halves = halves_of(entry);
    if (!halves) {
      return absl::InvalidArgumentError(absl::StrCat("field 'model.merges[", rank, "]': is ",
                                                     describe_json(entry),
                                                     ", expected \"a b\" or [\"a\", \"b\"]"));
    }
    const int32_t left = id_of(halves->first);
    const int32_t right = id_of(halves->second);
    const int32_t merged = id_of(std::string(halves->first) + std::string(halves->second));
    if (left < 0 || right < 0 || merged < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "field 'model.merges[", rank, "]': '", std::string(halves->first), "' and '",
          std::string(halves->second), "', of which the vocabulary lacks one, or what they make"));
    }
    add_merge(left, right, {rank, merged});  // a repeated pair takes its last rank
    ++rank;
  }
  return absl::OkStatus();
}

int32_t BpeModel::id_of(std::string_view token) const {
  const auto it = vocabulary_.find(token);
  return it == vocabulary_.end() ? -1 : it->second;
}

absl::Status BpeModel::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    if (const int32_t whole = id_of(piece); whole >= 0) {
      ids.push_back(whole);
      return absl::OkStatus();
    }
  }
  std::vector<int32_t> symbols;
  if (auto status = first_ids(piece, symbols); !status.ok()) return status;
  merge(symbols);
  ids.insert(ids.end(), symbols.begin(), symbols.end());
  return absl::OkStatus();
}

/// One id for each character, or for each byte of a character that falls back to bytes. A pending
/// unknown token is written only before the next character of the vocabulary, so bytes can overtake
/// it: that is what the reference does.
absl::Status BpeModel::first_ids(std::string_view piece, std::vector<int32_t>& ids) const {
  ids.reserve(piece.size());
  bool pending_unknown = false;
  const auto size = static_cast<int32_t>(piece.size());
  for (int32_t i = 0; i < size;) {
    const int32_t begin = i;
    UChar32 character = 0;
    U8_NEXT(piece.data(), i, size, character);
    if (const auto known = id_of_character_.find(character); known != id_of_character_.end()) {
      if (pending_unknown) ids.push_back(unknown_id_);
      pending_unknown = false;
      ids.push_back(known->second);
      continue;
    }
    const std::string_view bytes =
        piece.substr(static_cast<size_t>(begin), static_cast<size_t>(i - begin));
    if (!id_of_byte_.empty() && std::all_of(bytes.begin(), bytes.end(), [this](char byte) {
          return id_of_byte_[static_cast<unsigned char>(byte)] >= 0;
        })) {
      for (const char byte : bytes) ids.push_back(id_of_byte_[static_cast<unsigned char>(byte)]);
      continue;
    }
    if (unknown_id_ < 0) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "the vocabulary cannot spell the character U+%04X, and has no unknown token", character));
    }
    if (pending_unknown && !fuse_unknown_) ids.push_back(unknown_id_);
    pending_unknown = true;
  }
  if (pending_unknown) ids.push_back(unknown_id_);
  return absl::OkStatus();
}

const BpeModel::Merge* BpeModel::find_merge(int32_t left, int32_t right) const {
  const auto it = merges_.find(pair_key(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

/// The symbols form a linked list, and a heap holds the merges that were possible when they were
/// entered. An entry is stale when its place is gone or no longer gives the same token; a rescan
/// for every merge instead would be quadratic in the piece, and a piece can be a whole document.
void BpeModel::merge(std::vector<int32_t>& ids) const {
  struct Symbol {
    int32_t id;
    int32_t previous;
    int32_t next;  // -1: the last one
    bool alive = true;
  };
  struct Candidate {
    uint32_t rank;
    int32_t position;
    int32_t merged_id;
    bool operator<(const Candidate& other) const {  // the heap's top is the largest
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  const auto count = static_cast<int32_t>(ids.size());
  if (count < 2) return;
  std::vector<Symbol> symbols;
  symbols.reserve(ids.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols.push_back({ids[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1});
  }
  const auto symbol = [&symbols](int32_t position) -> Symbol& {
    return symbols[static_cast<size_t>(position)];
  };

  std::vector<Candidate> initial;
  for (int32_t i = 0; i + 1 < count; ++i) {
    if (const Merge* merge = find_merge(symbol(i).id, symbol(i + 1).id)) {
      initial.push_back({merge->rank, i, merge->merged_id});
    }
  }
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(initial));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbol(top.position);
    if (!left.alive || left.next < 0) continue;
    Symbol& right = symbol(left.next);
    const Merge* current = find_merge(left.id, right.id);
    if (current == nullptr || current->merged_id != top.merged_id) continue;

    left.id = top.merged_id;
    right.alive = false;
    left.next = right.next;
    if (left.next >= 0) symbol(left.next).previous = top.position;
    if (left.previous >= 0) {
      if (const Merge* merge = find_merge(symbol(left.previous).id, left.id)) {
        queue.push({merge->rank, left.previous, merge->merged_id});
      }
    }
    if (left.next >= 0) {
      if (const Merge* merge = find_merge(left.id, symbol(left.next).id)) {
        queue.push({merge->rank, top.position, merge->merged_id});
      }
    }
  }
  ids.clear();
  for (int32_t i = 0; i >= 0; i = symbol(i).next) ids.push_back(symbol(i).id);
}

}  // namespace qaas
