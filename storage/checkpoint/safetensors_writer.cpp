#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

#include <absl/cleanup/cleanup.h>
#include <absl/strings/str_cat.h>
#include <nlohmann/json.hpp>

#include "storage/checkpoint/safetensors.h"
#include "storage/checkpoint/strict_json.h"
#include "storage/checkpoint/tensor_rules.h"

namespace qaas {
namespace {

absl::Status check_input(const std::vector<TensorToWrite>& sorted,
                         const std::map<std::string, std::string>& metadata) {
  if (static_cast<int64_t>(sorted.size()) > kMaxTensors) {
    return absl::InvalidArgumentError(
        absl::StrCat(sorted.size(), " tensors, at most ", kMaxTensors, " are accepted"));
  }
  std::vector<std::string> names;
  for (const TensorToWrite& tensor : sorted) {
    if (absl::Status status = check_tensor_name(tensor.name); !status.ok()) return status;
    const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
    if (!bytes.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", tensor.name, "': ", bytes.status().message()));
    }
    if (*bytes != static_cast<int64_t>(tensor.bytes.size())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor '", tensor.name, "': dtype ", dtype_name(tensor.dtype), " and shape ",
          shape_text(tensor.shape), " need ", *bytes, " bytes, got ", tensor.bytes.size()));
    }
    names.push_back(tensor.name);
  }
  std::sort(names.begin(), names.end());
  if (auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end()) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", *twice, "' is given twice"));
  }
  for (const auto& [key, value] : metadata) {
    if (!is_valid_utf8(key) || !is_valid_utf8(value)) {
      return absl::InvalidArgumentError(absl::StrCat("metadata '", key, "' is not valid UTF-8"));
    }
  }
  return absl::OkStatus();
}

/// Eight bytes of length, then the header, padded so that the data area starts 8-aligned.
std::string make_header(const std::vector<TensorToWrite>& sorted,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  header["__metadata__"]["format"] = "pt";  // transformers 4 refuses metadata without it
  for (const auto& [key, value] : metadata) header["__metadata__"][key] = value;
  std::string text = header.dump();
  text.pop_back();  // the closing brace: tensors follow, written here to keep this linear in time
  size_t offset = 0;
  for (const TensorToWrite& tensor : sorted) {
    const size_t end = offset + tensor.bytes.size();
    const nlohmann::ordered_json entry = {{"dtype", dtype_name(tensor.dtype)},
                                          {"shape", tensor.shape},
                                          {"data_offsets", {offset, end}}};
    absl::StrAppend(&text, ",", nlohmann::json(tensor.name).dump(), ":", entry.dump());
    offset = end;
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string length;
  for (int shift = 0; shift < 64; shift += 8) {
    length.push_back(static_cast<char>(text.size() >> shift & 0xFF));
  }
  return length + text;
}

absl::Status write_all(int descriptor, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, "write");
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status write_and_sync(int descriptor, const std::string& header,
                            const std::vector<TensorToWrite>& tensors) {
  if (auto status = write_all(descriptor, std::as_bytes(std::span(header))); !status.ok()) {
    return status;
  }
  for (const TensorToWrite& tensor : tensors) {
    if (auto status = write_all(descriptor, tensor.bytes); !status.ok()) return status;
  }
  if (fsync(descriptor) != 0) return absl::ErrnoToStatus(errno, "fsync");
  return absl::OkStatus();
}

/// Makes a rename in `folder` durable.
absl::Status sync_folder(const std::filesystem::path& folder) {
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, folder.string());
  const int result = fsync(descriptor);
  const int error = errno;
  close(descriptor);
  if (result != 0) return absl::ErrnoToStatus(error, folder.string());
  return absl::OkStatus();
}

}  // namespace

absl::Status write_safetensors(const std::filesystem::path& path,
                               std::vector<TensorToWrite> tensors,
                               const std::map<std::string, std::string>& metadata) {
  const auto in_file = [&path](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat(path.string(), ": ", status.message()));
  };
  std::sort(tensors.begin(), tensors.end(), [](const TensorToWrite& a, const TensorToWrite& b) {
    return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
  });
  if (auto status = check_input(tensors, metadata); !status.ok()) return in_file(status);
  const std::string header = make_header(tensors, metadata);
  if (static_cast<int64_t>(header.size()) - 8 > kMaxSafetensorsHeader) {
    return in_file(absl::InvalidArgumentError(absl::StrCat(
        "the header would have ", header.size() - 8, " bytes, beyond ", kMaxSafetensorsHeader)));
  }

  // A hidden name, so that no reader of the folder takes the unfinished file for a part of it.
  static std::atomic<uint64_t> serial = 0;
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  std::filesystem::path temporary;
  int descriptor = -1;
  do {
    temporary = folder / absl::StrCat(".", path.filename().string(), ".", getpid(), ".", serial++);
    descriptor = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor < 0 && errno == EEXIST);
  if (descriptor < 0) return in_file(absl::ErrnoToStatus(errno, "create"));
  absl::Cleanup remove_temporary = [&temporary] { unlink(temporary.c_str()); };

  absl::Status written = write_and_sync(descriptor, header, tensors);
  if (close(descriptor) != 0 && written.ok()) written = absl::ErrnoToStatus(errno, "close");
  if (!written.ok()) return in_file(written);
  if (rename(temporary.c_str(), path.c_str()) != 0) {
    return in_file(absl::ErrnoToStatus(errno, "rename"));
  }
  std::move(remove_temporary).Cancel();
  return sync_folder(folder);
}

}  // namespace qaas
