#include "storage/checkpoint/safetensors.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include <absl/strings/str_cat.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/strict_json.h"
#include "storage/checkpoint/tensor_rules.h"

namespace qaas {
namespace {

using nlohmann::json;

constexpr int64_t kLengthBytes = 8;

/// What tells one state of a file from another.
struct FileState {
  dev_t device;
  ino_t inode;
  off_t size;
  timespec modified;

  bool operator==(const FileState& other) const {
    return device == other.device && inode == other.inode && size == other.size &&
           modified.tv_sec == other.modified.tv_sec && modified.tv_nsec == other.modified.tv_nsec;
  }
};

FileState state_of(const struct stat& stat) {
  return {stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtim};
}

/// A tensor's place in the data area, before the places are checked against one another.
struct Entry {
  std::string name;
  Dtype dtype;
  std::vector<int64_t> shape;
  int64_t begin;
  int64_t end;
};

/// Plain digits only: no sign, fraction or exponent.
std::optional<int64_t> as_count(const json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const uint64_t number = value.get<uint64_t>();
  if (number > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return static_cast<int64_t>(number);
}

absl::Status tensor_error(const std::string& name, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "': ", what));
}

absl::StatusOr<Entry> parse_entry(const std::string& name, const json& value) {
  if (absl::Status status = check_tensor_name(name); !status.ok()) return status;
  if (!value.is_object()) {
    return tensor_error(name, absl::StrCat("expected an object, got ", describe_json(value)));
  }
  for (const char* field : {"dtype", "shape", "data_offsets"}) {
    if (!value.contains(field)) return tensor_error(name, absl::StrCat("has no '", field, "'"));
  }
  Entry entry{.name = name};

  const json& dtype = value["dtype"];
  const auto known =
      dtype.is_string() ? dtype_from_name(dtype.get_ref<const std::string&>()) : std::nullopt;
  if (!known) {
    return tensor_error(name, absl::StrCat("dtype is ", describe_json(dtype),
                                           "; accepted: BOOL, U8, I8, I16, U16, F16, BF16, I32, "
                                           "U32, F32, F64, I64, U64"));
  }
  entry.dtype = *known;

  const json& shape = value["shape"];
  if (!shape.is_array()) {
    return tensor_error(name, absl::StrCat("shape is ", describe_json(shape), ", not an array"));
  }
  for (const json& dimension : shape) {
    const auto count = as_count(dimension);
    if (!count) {
      return tensor_error(name, absl::StrCat("shape holds ", describe_json(dimension),
                                             ", expected integers from 0 to 2^63-1"));
    }
    entry.shape.push_back(*count);
  }

  const json& offsets = value["data_offsets"];
  const bool is_pair = offsets.is_array() && offsets.size() == 2;
  const auto begin = is_pair ? as_count(offsets[0]) : std::nullopt;
  const auto end = is_pair ? as_count(offsets[1]) : std::nullopt;
  if (!begin || !end) {
    return tensor_error(name, "data_offsets must be two integers from 0 to 2^63-1");
  }
  entry.begin = *begin;
  entry.end = *end;
  if (entry.begin > entry.end) {
    return tensor_error(name, absl::StrCat("data_offsets begin at ", entry.begin,
                                           " after their end at ", entry.end));
  }

  const auto bytes = tensor_bytes(entry.dtype, entry.shape);
  if (!bytes.ok()) return tensor_error(name, std::string(bytes.status().message()));
  if (*bytes != entry.end - entry.begin) {
    return tensor_error(name, absl::StrCat("dtype ", dtype_name(entry.dtype), " and shape ",
                                           shape_text(entry.shape), " need ", *bytes,
                                           " bytes, data_offsets span ", entry.end - entry.begin));
  }
  return entry;
}

/// The tensors must fill the data area: the first begins at 0, each begins where the one before
/// ended, the last ends at the end of the file. That excludes holes, overlaps and trailing bytes.
absl::Status check_layout(std::vector<Entry>& entries, int64_t data_size) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  int64_t position = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != position) {
      return tensor_error(
          entry.name,
          absl::StrCat("begins at ", entry.begin, " of the data area, expected ", position,
                       entry.begin > position ? " (a hole)" : " (an overlap)"));
    }
    position = entry.end;
  }
  if (position == data_size) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the tensors end at byte ", position, " of the data area, which has ", data_size,
                   position > data_size ? " bytes: the file is truncated"
                                        : " bytes: the file has trailing bytes"));
}

struct Header {
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;
};

absl::StatusOr<Header> parse_header(std::string_view text) {
  if (text.empty() || text.front() != '{') {
    return absl::InvalidArgumentError("the header does not begin with '{'");
  }
  const size_t last = text.find_last_not_of(' ');
  if (text[last] != '}') {
    return absl::InvalidArgumentError("the header does not end with '}' and blanks");
  }
  auto document = parse_strict_json(
      text.substr(0, last + 1),
      {.max_depth = 4, .max_values = kMaxTensors * static_cast<int64_t>(8 + kMaxRank)});
  if (!document.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("header: ", document.status().message()));
  }
  if (static_cast<int64_t>(document->size()) > kMaxTensors + 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "header names ", document->size(), " tensors, at most ", kMaxTensors, " are accepted"));
  }
  Header header;
  for (const auto& [name, value] : document->items()) {
    if (name != "__metadata__") {
      auto entry = parse_entry(name, value);
      if (!entry.ok()) return entry.status();
      header.entries.push_back(*std::move(entry));
      continue;
    }
    if (!value.is_object()) {
      return absl::InvalidArgumentError(
          absl::StrCat("__metadata__ is ", describe_json(value), ", not an object"));
    }
    for (const auto& [key, text_value] : value.items()) {
      if (!text_value.is_string()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "__metadata__ '", key, "' is ", describe_json(text_value), ", not a string"));
      }
      header.metadata[key] = text_value.get<std::string>();
    }
  }
  return header;
}

}  // namespace

struct SafetensorsFile::Mapping {
  Mapping() = default;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (address != MAP_FAILED) munmap(address, static_cast<size_t>(state.size));
    if (descriptor >= 0) close(descriptor);
  }

  std::filesystem::path path;
  int descriptor = -1;
  FileState state{};
  void* address = MAP_FAILED;
  std::map<std::string, TensorView> tensors;
  std::map<std::string, std::string> metadata;
};

absl::StatusOr<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  const auto refuse = [&path](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", what));
  };
  auto mapping = std::make_shared<Mapping>();
  mapping->path = path;
  // Non-blocking, so that a FIFO in the place of a file cannot hold us up.
  mapping->descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (mapping->descriptor < 0) return absl::ErrnoToStatus(errno, path.string());
  struct stat stat {};
  if (fstat(mapping->descriptor, &stat) != 0) return absl::ErrnoToStatus(errno, path.string());
  if (!S_ISREG(stat.st_mode)) return refuse("not a regular file");
  mapping->state = state_of(stat);
  const int64_t size = stat.st_size;
  if (size < kLengthBytes) {
    return refuse(absl::StrCat("the file has ", size, " bytes, a safetensors file at least 8"));
  }
  mapping->address =
      mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_PRIVATE, mapping->descriptor, 0);
  if (mapping->address == MAP_FAILED) return absl::ErrnoToStatus(errno, path.string());

  const auto* bytes = static_cast<const std::byte*>(mapping->address);
  uint64_t header_size = 0;
  for (int i = kLengthBytes - 1; i >= 0; --i) {
    header_size = header_size << 8 | std::to_integer<uint64_t>(bytes[i]);
  }
  if (header_size > static_cast<uint64_t>(kMaxSafetensorsHeader)) {
    return refuse(absl::StrCat("header length ", header_size, " is beyond the limit of ",
                               kMaxSafetensorsHeader, " bytes"));
  }
  const int64_t data_begin = kLengthBytes + static_cast<int64_t>(header_size);
  if (data_begin > size) {
    return refuse(absl::StrCat("header length ", header_size, " reaches past the end of the file (",
                               size, " bytes)"));
  }
  auto header = parse_header(
      {reinterpret_cast<const char*>(bytes) + kLengthBytes, static_cast<size_t>(header_size)});
  if (!header.ok()) return refuse(header.status().message());
  if (absl::Status status = check_layout(header->entries, size - data_begin); !status.ok()) {
    return refuse(status.message());
  }
  for (Entry& entry : header->entries) {
    const std::span<const std::byte> view(bytes + data_begin + entry.begin,
                                          static_cast<size_t>(entry.end - entry.begin));
    mapping->tensors.emplace(std::move(entry.name),
                             TensorView{entry.dtype, std::move(entry.shape), view});
  }
  mapping->metadata = std::move(header->metadata);

  SafetensorsFile file;
  file.mapping_ = std::move(mapping);
  return file;
}

const std::map<std::string, TensorView>& SafetensorsFile::tensors() const {
  return mapping_->tensors;
}

const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return mapping_->metadata;
}

int64_t SafetensorsFile::file_size() const { return mapping_->state.size; }

absl::Status SafetensorsFile::check_unchanged() const {
  // By path as well: a file replaced by rename leaves our mapping whole, but is another model.
  struct stat mapped {};
  struct stat named {};
  const bool same = fstat(mapping_->descriptor, &mapped) == 0 &&
                    stat(mapping_->path.c_str(), &named) == 0 &&
                    state_of(mapped) == mapping_->state && state_of(named) == mapping_->state;
  if (same) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(mapping_->path.string(), ": the file changed after it was opened"));
}

}  // namespace qaas
