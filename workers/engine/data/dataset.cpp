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

/// The concatenated ids of a dataset, read up to a limit.
class TokenStream {
 public:
  TokenStream(const Tokenizer* tokenizer, int32_t vocab_size, size_t limit)
      : tokenizer_(tokenizer), vocab_size_(vocab_size), limit_(limit) {}

  bool full() const { return ids_.size() >= limit_; }
  const std::vector<int32_t>& ids() const { return ids_; }

  absl::Status read(const fs::path& path, Kind kind) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return absl::UnavailableError(absl::StrCat(path.string(), ": cannot be read"));
    if (kind != Kind::kIds && tokenizer_ == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(path.string(), ": is text, but there is no tokenizer"));
    }
    if (kind == Kind::kText) return read_text(path, file);
    std::string line;
    for (int64_t number = 1; !full() && std::getline(file, line); ++number) {
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
    const auto ids = tokenizer_->encode(text, Tokenizer::SpecialTokens::kAdd);
    if (!ids.ok()) return ids.status();
    for (const int32_t id : *ids) {
      if (auto status = append_id(id); !status.ok()) return status;
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
    for (size_t begin = line.find_first_not_of(kBlanks); begin != std::string::npos && !full();) {
      const size_t end = std::min(line.find_first_of(kBlanks, begin), line.size());
      int32_t id = 0;
      const auto [stop, error] = std::from_chars(line.data() + begin, line.data() + end, id);
      if (error != std::errc() || stop != line.data() + end) {
        return absl::InvalidArgumentError(
            absl::StrCat("'", printable(std::string_view(line).substr(begin, end - begin)),
                         "' is not a decimal token id"));
      }
      if (auto status = append_id(id); !status.ok()) return status;
      begin = line.find_first_not_of(kBlanks, end);
    }
    return absl::OkStatus();
  }

  absl::Status append_id(int32_t id) {
    if (id < 0 || id >= vocab_size_) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id ", id, " is outside the model's vocabulary of ", vocab_size_));
    }
    if (!full()) ids_.push_back(id);
    return absl::OkStatus();
  }

  const Tokenizer* tokenizer_;
  int32_t vocab_size_;
  size_t limit_;
  std::vector<int32_t> ids_;
};

absl::Status read_dataset(const fs::path& dataset, TokenStream& stream) {
  std::error_code error;
  if (fs::is_regular_file(dataset, error)) {
    const auto kind = kind_of(dataset.filename().string());
    if (!kind) {
      return absl::InvalidArgumentError(
          absl::StrCat(dataset.string(), ": not a dataset file; ", kAccepted));
    }
    return stream.read(dataset, *kind);
  }
  const auto names = folder_files(dataset);
  if (!names.ok()) return names.status();
  bool any = false;
  for (const std::string& name : *names) {
    const auto kind = kind_of(name);
    if (!kind) continue;  // a README or a licence beside the data
    any = true;
    if (stream.full()) break;
    const auto path = resolve_inside(dataset, name);
    if (!path.ok()) return path.status();
    if (auto status = stream.read(*path, *kind); !status.ok()) return status;
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
  const int64_t wanted = options.count > 0 ? options.count : options.max_count;
  // The first windows need no more than their own tokens; random ones are drawn from all.
  const size_t limit = options.choice == WindowChoice::kFirst
                           ? static_cast<size_t>(wanted) * static_cast<size_t>(options.length)
                           : std::numeric_limits<size_t>::max();
  TokenStream stream(tokenizer, options.vocab_size, limit);
  if (auto status = read_dataset(dataset, stream); !status.ok()) return status;

  const int64_t available = static_cast<int64_t>(stream.ids().size()) / options.length;
  if (available < std::max<int64_t>(options.count, 1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        dataset.string(), ": ", stream.ids().size(), " tokens make ", available, " windows of ",
        options.length, ", expected at least ", std::max<int64_t>(options.count, 1)));
  }
  TokenWindows windows{.count = std::min(available, wanted), .length = options.length};
  windows.ids.reserve(static_cast<size_t>(windows.count * windows.length));
  const auto append_window = [&](int64_t index) {
    const auto begin = stream.ids().begin() + index * windows.length;
    windows.ids.insert(windows.ids.end(), begin, begin + windows.length);
  };
  if (options.choice == WindowChoice::kFirst) {
    for (int64_t i = 0; i < windows.count; ++i) append_window(i);
  } else {
    for (const int64_t i : choose(available, windows.count, options.seed)) append_window(i);
  }
  return windows;
}

}  // namespace qaas
