#include "server/folder_scan.h"

#include <algorithm>
#include <sys/stat.h>
#include <system_error>
#include <utility>

#include <absl/strings/str_cat.h>

#include "server/resource_names.h"
#include "storage/checkpoint/digest.h"

namespace qaas {
namespace {

namespace fs = std::filesystem;

bool is_within(const fs::path& root, const fs::path& path) {
  const auto [root_end, ignored] =
      std::mismatch(root.begin(), root.end(), path.begin(), path.end());
  return root_end == root.end();
}

struct File {
  std::string name;
  int64_t size = 0;
  timespec modified{};
};

// The regular files of a folder, hidden ones left out, in name order. A folder that vanishes
// meanwhile counts as empty: the next scan sees the truth.
std::vector<File> visible_files(const fs::path& folder) {
  std::vector<File> files;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    struct stat status {};
    if (name.front() == '.' || stat(it->path().c_str(), &status) != 0 || !S_ISREG(status.st_mode)) {
      continue;
    }
    files.push_back({.name = name, .size = status.st_size, .modified = status.st_mtim});
  }
  std::sort(files.begin(), files.end(),
            [](const File& a, const File& b) { return a.name < b.name; });
  return files;
}

absl::StatusOr<ScannedFolder> scan_folder(const fs::path& folder) {
  ScannedFolder scanned{.name = folder.filename().string()};
  std::string listing;
  for (const File& file : visible_files(folder)) {
    absl::StrAppend(&listing, file.name, "\n", file.size, " ", file.modified.tv_sec, ".",
                    file.modified.tv_nsec, "\n");
    scanned.modified_seconds =
        std::max(scanned.modified_seconds, static_cast<int64_t>(file.modified.tv_sec));
  }
  absl::StatusOr<std::string> fingerprint = sha256_text(listing);
  if (!fingerprint.ok()) return fingerprint.status();
  scanned.fingerprint = *std::move(fingerprint);
  return scanned;
}

}  // namespace

absl::StatusOr<std::vector<ScannedFolder>> scan_root(const fs::path& root) {
  std::error_code error;
  const fs::path real_root = fs::canonical(root, error);
  std::vector<ScannedFolder> folders;
  if (!error) {
    for (fs::directory_iterator it(real_root, error), end; !error && it != end;
         it.increment(error)) {
      if (!is_folder_id(it->path().filename().string())) continue;
      std::error_code ignored;
      const fs::path real = fs::canonical(it->path(), ignored);
      if (ignored || real == real_root || !is_within(real_root, real) ||
          !fs::is_directory(real, ignored)) {
        continue;
      }
      absl::StatusOr<ScannedFolder> scanned = scan_folder(it->path());
      if (!scanned.ok()) return scanned.status();
      folders.push_back(*std::move(scanned));
    }
  }
  if (error) {
    return absl::UnavailableError(absl::StrCat("folder '", root.string(), "': ", error.message()));
  }
  std::sort(folders.begin(), folders.end(),
            [](const ScannedFolder& a, const ScannedFolder& b) { return a.name < b.name; });
  return folders;
}

DatasetFolder inspect_dataset(const fs::path& folder) {
  DatasetFolder dataset{.name = folder.filename().string()};
  bool any = false;
  for (const File& file : visible_files(folder)) {
    const std::string extension = fs::path(file.name).extension().string();
    if (extension != ".txt" && extension != ".jsonl" && extension != ".ids") continue;
    any = true;
    if (file.size > 0) return dataset;
  }
  dataset.problem = any ? "all its .txt, .jsonl and .ids files are empty"
                        : "it holds no .txt, .jsonl or .ids file";
  return dataset;
}

}  // namespace qaas
