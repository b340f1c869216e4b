#include "workers/engine/job/available_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <malloc.h>
#include <optional>
#include <string>

#include <absl/strings/numbers.h>

namespace qaas {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

/// The number a one-line file holds; none for "max" or where there is no such file.
std::optional<int64_t> number_in(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string text;
  int64_t value = 0;
  if (!std::getline(file, text) || !absl::SimpleAtoi(text, &value)) return std::nullopt;
  return value;
}

/// The number after `key` in a file of "key number" lines.
int64_t field_in(const std::filesystem::path& path, const std::string& key, int64_t otherwise) {
  std::ifstream file(path);
  for (std::string name, rest; file >> name;) {
    int64_t value = 0;
    if (!std::getline(file, rest)) break;
    rest = rest.substr(0, rest.find(" kB"));
    if (name == key && absl::SimpleAtoi(rest, &value)) return value;
  }
  return otherwise;
}

/// What the groups from `group` up to `top` leave, by the names their version gives the files.
int64_t left_of_groups(const std::filesystem::path& top, std::filesystem::path group,
                       const std::string& limit_file, const std::string& usage_file) {
  int64_t left = kUnlimited;
  for (;; group = group.parent_path()) {
    const std::filesystem::path folder = top / group.relative_path();
    const auto limit = number_in(folder / limit_file);
    const auto usage = number_in(folder / usage_file);
    if (limit.has_value() && usage.has_value()) {
      const int64_t droppable = field_in(folder / "memory.stat", "inactive_file", 0);
      left = std::min(left, std::max<int64_t>(0, *limit - *usage + droppable));
    }
    if (!group.has_relative_path()) return left;
  }
}

}  // namespace

int64_t available_memory(const std::filesystem::path& root) {
  int64_t left = field_in(root / "proc/meminfo", "MemAvailable:", kUnlimited / 1024) * 1024;
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "id:controllers:/path"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::filesystem::path group = line.substr(second + 1);
    if (controllers.empty()) {
      left = std::min(
          left, left_of_groups(root / "sys/fs/cgroup", group, "memory.max", "memory.current"));
    } else if (controllers == "memory") {
      left = std::min(left, left_of_groups(root / "sys/fs/cgroup/memory", group,
                                           "memory.limit_in_bytes", "memory.usage_in_bytes"));
    }
  }
  return left;
}

void release_freed_memory() { malloc_trim(/*pad=*/0); }

}  // namespace qaas
