#include "workers/engine/data/dataset.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <random>

#include <absl/status/status.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/folder_entry.h"
#include "storage/checkpoint/message_text.h"
#include "storage/checkpoint/strict_json.h"

namespace qaas {
namespace {

namespace fs = std::filesystem;

constexpr char kAccepted[] = "accepted: .txt, .jsonl and .ids";

enum class Kind { kText, kJsonLines, kIds };

std::optional<Kind> kind_of(const std::string& name) {
  if (absl::EndsWith(name, ".txt")) return Kind::kText;
  if (absl::EndsWith(name, ".jsonl")) return Kind::kJsonLines;
  if (absl::EndsWith(name, ".ids")) return Kind::kIds;
  return std::nullopt;
}

absl::Status check_options(const WindowOptions& options) {
  constexpr int64_t kMaxLength = int64_t{1} << 24;
  constexpr int64_t kMaxCount = int64_t{1} << 32;
  if (options.length < 1 || options.length > kMaxLength || options.count < 0 ||
      options.count > kMaxCount || options.max_count < 1 || options.max_count > kMaxCount ||
      options.vocab_size < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "windows of length ", options.length, ", count ", options.count, ", max_count ",
        options.max_count, ", vocab_size ", options.vocab_size, ": expected a length up to ",
        kMaxLength, ", counts up to ", kMaxCount, ", and at least 1 but for count"));
  }
  return absl::OkStatus();
}

/// What goes in front of documents or windows, from the options and what the tokenizer does itself.
struct Openings {
  std::vector<int32_t> document, window;
};

absl::StatusOr<Openings> find_openings(const Tokenizer* tokenizer, const WindowOptions& options) {
  Openings openings;
  if (tokenizer == nullptr || options.begin_of_sequence == BeginOfSequence::kNone) return openings;
  std::vector<int32_t> opening = tokenizer->around().prefix;
  if (options.begin_of_sequence == BeginOfSequence::kAsTokenizer) {
    openings.document = std::move(opening);
    return openings;
  }
  if (opening.empty() && options.bos_id >= 0) opening.push_back(options.bos_id);
  if (opening.empty()) {
    return absl::InvalidArgumentError(
        "begin_of_sequence asks for a begin-of-sequence token, but neither the tokenizer nor "
        "config.json (bos_token_id) names one; accepted: BEGIN_OF_SEQUENCE_NONE");
  }
  const bool by_window = options.begin_of_sequence == BeginOfSequence::kWindow;
  if (by_window && static_cast<int64_t>(opening.size()) >= options.length) {
    return absl::InvalidArgumentError(absl::StrCat("windows of ", options.length,
                                                   " tokens have no room for text behind ",
                                                   opening.size(), " opening tokens"));
  }
  (by_window ? openings.window : openings.document) = std::move(opening);
  return openings;
}

/// Cuts documents into windows. Documents whose windows open alike follow one another without a
/// seam, unless the packing keeps them apart.
class WindowCutter {
 public:
  /// Keeps no more than `limit` windows. `options` must outlive the cutter.
  WindowCutter(const WindowOptions& options, size_t limit)
      : options_(options), length_(static_cast<size_t>(options.length)), limit_(limit) {}

  bool full() const { return count_ >= limit_; }
  int64_t count() const { return static_cast<int64_t>(count_); }
  size_t tokens() const { return tokens_; }

  /// Starts a document whose windows begin with `opening`, which must outlive the cutter.
  void begin_document(const std::vector<int32_t>& opening) {
    const bool joins = opening_ != nullptr && *opening_ == opening;
    if (options_.packing == Packing::kWithinDocument || !joins) ids_.resize(whole_);
    opening_ = &opening;
  }

  absl::Status append(int32_t id) {
    if (id < 0 || id >= options_.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "token id ", id, " is outside the model's vocabulary of ", options_.vocab_size));
    }
    ++tokens_;
    if (full()) return absl::OkStatus();
    if (ids_.size() == whole_) ids_.insert(ids_.end(), opening_->begin(), opening_->end());
    ids_.push_back(id);
    if (ids_.size() < whole_ + length_) return absl::OkStatus();
    whole_ = ids_.size();
    ++count_;
    return absl::OkStatus();
  }

  void copy_window(int64_t index, std::vector<int32_t>& out) const {
    const auto begin = ids_.begin() + index * options_.length;
    out.insert(out.end(), begin, begin + options_.length);
  }

 private:
  const WindowOptions& options_;
  size_t length_, limit_;
  const std::vector<int32_t>* opening_ = nullptr;
  std::vector<int32_t> ids_;  // whole windows one after the other, then a partial one
  size_t whole_ = 0;          // ids in whole windows
  size_t count_ = 0;          // whole windows
  size_t tokens_ = 0;         // of the documents
};

/// Reads files into windows.
class DatasetReader {
 public:
  DatasetReader(const Tokenizer* tokenizer, const WindowOptions& options, Openings openings,
                WindowCutter& windows)
      : tokenizer_(tokenizer),
        special_text_(options.special_text),
        openings_(std::move(openings)),
        windows_(windows) {}

  absl::Status read(const fs::path& path, Kind kind) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return absl::UnavailableError(absl::StrCat(path.string(), ": cannot be read"));
    if (kind != Kind::kIds && tokenizer_ == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(path.string(), ": is text, but there is no tokenizer"));
    }
    if (kind == Kind::kText) return read_text(path, file);
    if (kind == Kind::kIds) windows_.begin_document(no_opening_);
    std::string line;
    for (int64_t number = 1; !windows_.full() && std::getline(file, line); ++number) {
      const absl::Status status =
          kind == Kind::kIds ? append_numbers(line) : append_json_line(line);
      if (!status.ok()) {
        return absl::Status(status.code(),
                            absl::StrCat(path.string(), ", line ", number, ": ", status.message()));
      }
    }
    return check_read(path, file);
  }

 private:
  absl::Status read_text(const fs::path& path, std::ifstream& file) {
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    if (auto status = check_read(path, file); !status.ok()) return status;
    const absl::Status status = append_document(text);
    if (status.ok()) return status;
    return absl::Status(status.code(), absl::StrCat(path.string(), ": ", status.message()));
  }

  static absl::Status check_read(const fs::path& path, const std::ifstream& file) {
    if (!file.bad()) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(path.string(), ": cannot be read to its end"));
  }

  absl::Status append_document(std::string_view text) {
    const auto ids = tokenizer_->encode(text, Tokenizer::SpecialTokens::kOmit, special_text_);
    if (!ids.ok()) return ids.status();
    windows_.begin_document(openings_.window);
    const std::vector<int32_t>& opening = openings_.document;
    for (const std::vector<int32_t>* part : {&opening, &*ids, &tokenizer_->around().suffix}) {
      for (const int32_t id : *part) {
        if (auto status = windows_.append(id); !status.ok()) return status;
      }
    }
    return absl::OkStatus();
  }

  absl::Status append_json_line(const std::string& line) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) return absl::OkStatus();
    const auto document = parse_strict_json(line, {});
    if (!document.ok()) return document.status();
    const auto text = document->is_object() ? document->find("text") : document->end();
    if (text == document->end() || !text->is_string()) {
      return absl::InvalidArgumentError("expected an object with a string 'text'");
    }
    return append_document(text->get_ref<const std::string&>());
  }

  absl::Status append_numbers(const std::string& line) {
    constexpr char kBlanks[] = " \t\r\v\f";
    size_t begin = line.find_first_not_of(kBlanks);
    while (begin != std::string::npos && !windows_.full()) {
      const size_t end = std::min(line.find_first_of(kBlanks, begin), line.size());
      int32_t id = 0;
      const auto [stop, error] = std::from_chars(line.data() + begin, line.data() + end, id);
      if (error != std::errc() || stop != line.data() + end) {
        return absl::InvalidArgumentError(
            absl::StrCat("'", printable(std::string_view(line).substr(begin, end - begin)),
                         "' is not a decimal token id"));
      }
      if (auto status = windows_.append(id); !status.ok()) return status;
      begin = line.find_first_not_of(kBlanks, end);
    }
    return absl::OkStatus();
  }

  const Tokenizer* tokenizer_;
  Tokenizer::SpecialText special_text_;
  Openings openings_;
  std::vector<int32_t> no_opening_;  // of .ids files
  WindowCutter& windows_;
};

absl::Status read_dataset(const fs::path& dataset, DatasetReader& reader,
                          const WindowCutter& windows) {
  std::error_code error;
  if (fs::is_regular_file(dataset, error)) {
    const auto kind = kind_of(dataset.filename().string());
    if (!kind) {
      return absl::InvalidArgumentError(
          absl::StrCat(dataset.string(), ": not a dataset file; ", kAccepted));
    }
    return reader.read(dataset, *kind);
  }
  const auto names = folder_files(dataset);
  if (!names.ok()) return names.status();
  bool any = false;
  for (const std::string& name : *names) {
    const auto kind = kind_of(name);
    if (!kind) continue;  // a README or a licence beside the data
    any = true;
    if (windows.full()) break;
    const auto path = resolve_inside(dataset, name);
    if (!path.ok()) return path.status();
    if (auto status = reader.read(*path, *kind); !status.ok()) return status;
  }
  if (any) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(dataset.string(), ": holds no dataset file; ", kAccepted));
}

/// `count` different numbers below `available`, in random order. Spelled out, because what
/// std::uniform_int_distribution draws differs between standard libraries.
std::vector<int64_t> choose(int64_t available, int64_t count, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::vector<int64_t> order(static_cast<size_t>(available));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  for (int64_t i = 0; i < count; ++i) {
    const auto left = static_cast<uint64_t>(available - i);
    const uint64_t highest = std::numeric_limits<uint64_t>::max() / left * left;
    uint64_t draw = generator();
    while (draw >= highest) draw = generator();  // keeps every window equally likely
    std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(i) + draw % left]);
  }
  order.resize(static_cast<size_t>(count));
  return order;
}

}  // namespace

absl::StatusOr<TokenWindows> load_windows(const fs::path& dataset, const Tokenizer* tokenizer,
                                          const WindowOptions& options) {
  if (auto status = check_options(options); !status.ok()) return status;
  absl::StatusOr<Openings> openings = find_openings(tokenizer, options);
  if (!openings.ok()) return openings.status();
  const int64_t wanted = options.count > 0 ? options.count : options.max_count;
  // The first windows need no more than their own tokens; random ones are drawn from all.
  WindowCutter cutter(options, options.choice == WindowChoice::kFirst
                                   ? static_cast<size_t>(wanted)
                                   : std::numeric_limits<size_t>::max());
  DatasetReader reader(tokenizer, options, *std::move(openings), cutter);
  if (auto status = read_dataset(dataset, reader, cutter); !status.ok()) return status;

  const int64_t available = cutter.count();
  if (available < std::max<int64_t>(options.count, 1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        dataset.string(), ": ", cutter.tokens(), " tokens make ", available, " windows of ",
        options.length, ", expected at least ", std::max<int64_t>(options.count, 1)));
  }
  TokenWindows windows{.count = std::min(available, wanted), .length = options.length};
  windows.ids.reserve(static_cast<size_t>(windows.count * windows.length));
  if (options.choice == WindowChoice::kFirst) {
    for (int64_t i = 0; i < windows.count; ++i) cutter.copy_window(i, windows.ids);
  } else {
    for (const int64_t i : choose(available, windows.count, options.seed))
      cutter.copy_window(i, windows.ids);
  }
  return windows;
}

}  // namespace qaas
